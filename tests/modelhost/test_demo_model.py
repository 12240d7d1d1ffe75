"""The demo model's copy: made once and whole, or a sentence says why not."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modelhost import loading
from modelhost.checkpoints import Placement, gguf
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.types import ModelSpec
from tests.modelhost.conftest import CPU


class FakeConversion:
    """Stands in for transformers' GGUF reader: writes one file, notes what was there meanwhile."""

    def __init__(self, cache, error=None):
        self.cache, self.error = cache, error
        self.config = SimpleNamespace(quantization_config={})
        self.conversions = 0
        self.seen_while_saving = []

    def from_pretrained(self, folder, *, gguf_file, **_):
        self.conversions += gguf_file.endswith(".gguf") and "dtype" in _
        return self

    def save_pretrained(self, folder):
        (Path(folder) / "half-written").touch()
        self.seen_while_saving += [file.name for file in self.cache.iterdir()]
        if self.error:
            raise self.error


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """A demo checkpoint with an empty cache whose conversion is faked."""

    def make(error=None):
        fake = FakeConversion(tmp_path, error)
        monkeypatch.setattr(gguf, "AutoModelForCausalLM", fake)
        monkeypatch.setattr(gguf, "AutoTokenizer", fake)
        return fake, gguf.DemoCheckpoint(cache_dir=tmp_path)

    return make


def test_the_demo_models_copy_appears_only_when_it_is_whole(convert, tmp_path):
    fake, demo = convert()

    copy = demo._ensure_converted(Progress())

    assert copy.name not in fake.seen_while_saving
    assert (copy / "half-written").exists()
    assert {file.name for file in tmp_path.iterdir()} == {copy.name, f"{gguf.NAME}.lock"}
    assert copy.stat().st_mode & 0o777 == 0o755


def test_a_conversion_that_was_interrupted_leaves_no_copy(convert, tmp_path):
    _, demo = convert(KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        demo._ensure_converted(Progress())

    assert [file.name for file in tmp_path.iterdir()] == [f"{gguf.NAME}.lock"]


def test_what_a_killed_conversion_left_behind_is_removed_by_the_next(convert, tmp_path):
    (tmp_path / "converting-abc").mkdir()
    (tmp_path / "converting-abc" / "model.safetensors").touch()
    _, demo = convert()

    demo._ensure_converted(Progress())

    assert not (tmp_path / "converting-abc").exists()


def test_a_full_disk_is_a_sentence(convert):
    _, demo = convert(OSError(28, "No space left on device"))

    with pytest.raises(LoadFailed, match=r"No space left on device.*LLMSITE_CACHE"):
        demo.load(Placement(CPU, torch.float32), Progress())


def test_a_cache_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(LoadFailed, match="LLMSITE_CACHE"):
        gguf.DemoCheckpoint(cache_dir=tmp_path / "file" / "cache").chat_format()


def test_several_that_need_the_copy_convert_it_once(convert):
    fake, demo = convert()
    together = threading.Barrier(4)

    def ask():
        together.wait()
        demo._ensure_converted(Progress())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert fake.conversions == 1


def test_a_copy_that_is_there_is_not_made_again(convert):
    fake, demo = convert()
    demo._ensure_converted(Progress())
    (demo._cache / f"{gguf.NAME}.lock").unlink()

    demo._ensure_converted(Progress())

    assert fake.conversions == 1
    assert not (demo._cache / f"{gguf.NAME}.lock").exists()  # a read-only folder would do


def test_the_demo_model_is_described_before_it_was_ever_converted(tmp_path):
    described = gguf.DemoCheckpoint(cache_dir=tmp_path).describe(Placement(CPU, torch.float32))

    assert described.kind == "gguf"
    assert described.parameters == 134_515_008
    assert described.context_length == 8192
    assert described.files[0].endswith(".gguf")


@pytest.mark.model
def test_the_demo_model_is_what_its_description_says(demo_engine):
    described = loading.describe(ModelSpec(device="cpu"))

    assert described.parameters == demo_engine.card.parameters == 134_515_008
    assert described.revision == demo_engine.card.revision
    assert described.context_length == demo_engine.card.context_length == 8192


def test_the_cache_folder_follows_the_users_convention(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gguf.default_cache() == tmp_path / "llmsite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert gguf.default_cache() == Path.home() / ".cache" / "llmsite"


def test_a_demo_model_that_is_not_installed_is_a_sentence(monkeypatch):
    monkeypatch.setattr(gguf, "PACKAGE", "no_such_package_here")

    with pytest.raises(LoadFailed, match="make setup"):
        gguf.bundled_file()


def test_what_the_conversion_of_the_demo_asks_for_is_installed():
    # transformers refuses a GGUF file without it, and a kept copy hides that on this machine.
    assert importlib.util.find_spec("accelerate")

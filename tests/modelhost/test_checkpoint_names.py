"""What may be named: a folder, a hub id, in the cache or not; a device; a dtype."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from modelhost import checkpoints, loading
from modelhost.checkpoints.adapter import Adapter
from modelhost.checkpoints.shards import SINGLE
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.types import ModelSpec
from tests.modelhost.conftest import CPU


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing", "~nobody-at-all/x"])
def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(LoadFailed, match="There is no folder"):
        checkpoints.locate(ModelSpec(model=name), Progress())


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a//b", "a b", "a/b/c"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name):
    with pytest.raises(LoadFailed, match="neither a folder nor a hub id"):
        checkpoints.locate(ModelSpec(model=name), Progress())


@pytest.mark.parametrize("name", ["m" * 181, "model\udcff"])
def test_a_folder_whose_name_no_row_could_keep_is_refused(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(LoadFailed, match="rename") as refused:
        checkpoints.locate(ModelSpec(model=str(folder)), Progress())
    assert str(refused.value).isprintable()
    with pytest.raises(LoadFailed, match="rename"):
        Adapter(folder)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache of its own and no network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


SHA = "0123456789abcdef0123456789abcdef01234567"


def keep(cache, folder):
    """Put a folder into the cache as the hub library would have."""
    snapshot = cache / "models--org--tiny" / "snapshots" / SHA
    shutil.copytree(folder, snapshot)
    (cache / "models--org--tiny" / "refs").mkdir()
    (cache / "models--org--tiny" / "refs" / "main").write_text(SHA)
    return snapshot


def test_a_hub_id_in_the_cache_loads_without_the_network(hub_cache, tiny_folder, monkeypatch):
    keep(hub_cache, tiny_folder)
    monkeypatch.delattr(checkpoints, "_download")  # using it would be an error

    engine = loading.load(ModelSpec(model="org/tiny", device="cpu"), Progress())

    engine.stop()
    assert (engine.card.name, engine.card.revision) == ("org/tiny", SHA[:12])


def test_a_hub_id_that_is_not_in_the_cache_is_a_sentence_without_the_network(hub_cache):
    with pytest.raises(LoadFailed) as refusal:
        checkpoints.locate(ModelSpec(model="org/tiny"), Progress())

    assert str(refusal.value) == (
        "org/tiny is not in the local cache and could not be downloaded "
        "(LocalEntryNotFoundError). Check the name, the network and HF_ENDPOINT, "
        "or set LLMSITE_MODEL to a folder."
    )


def test_a_snapshot_without_its_weights_is_not_taken_for_a_model(hub_cache, tiny_folder):
    (keep(hub_cache, tiny_folder) / SINGLE).unlink()

    with pytest.raises(LoadFailed, match=f"lacks {SINGLE}"):
        loading.load(ModelSpec(model="org/tiny", device="cpu"), Progress())


def test_a_download_fetches_no_code_and_reports_its_progress(tiny_folder, tmp_path, monkeypatch):
    snapshot = tmp_path / SHA
    asked = {}

    def fake_download(repo_id, *, revision, local_files_only=False, **options):
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        asked.update(options, repo_id=repo_id, revision=revision)
        for _ in options["tqdm_class"](range(3), total=3):
            shutil.copytree(tiny_folder, snapshot, dirs_exist_ok=True)
        return str(snapshot)

    monkeypatch.setattr(checkpoints, "snapshot_download", fake_download)
    progress = Progress()

    checkpoint = checkpoints.locate(ModelSpec(model="org/tiny", revision="v2"), progress)

    assert (asked["repo_id"], asked["revision"]) == ("org/tiny", "v2")
    assert not any(
        Path(name).match(pattern)
        for name in ("modeling_trap.py", "pytorch_model.bin", "x.pkl", "x.pt")
        for pattern in asked["allow_patterns"]
    )
    assert progress.snapshot.stage == "Downloading org/tiny"
    assert (progress.snapshot.done, progress.snapshot.total) == (3, 3)
    assert (checkpoint.name, checkpoint.revision) == ("org/tiny", SHA[:12])


# Devices and dtypes


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "meta"])
def test_a_device_that_is_none_is_refused(name):
    with pytest.raises(LoadFailed):
        loading.pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_cuda_device_that_is_not_here_is_refused():
    with pytest.raises(LoadFailed, match="torch sees no CUDA device"):
        loading.pick_device("cuda:0")
    assert loading.pick_device("auto") == CPU


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("fp16", torch.float16),
     ("bf16", torch.bfloat16), ("float32", torch.float32)],
)  # fmt: skip
def test_dtypes_have_short_names(name, dtype):
    assert loading.pick_dtype(name, CPU) is dtype


@pytest.mark.parametrize("name", ["int8", "fp4", "", "nn", "complex64"])
def test_a_dtype_that_is_none_is_refused(name):
    with pytest.raises(LoadFailed):
        loading.pick_dtype(name, CPU)

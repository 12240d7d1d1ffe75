"""Checkpoints: found, described and loaded, or refused in one sentence; no code of theirs runs."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from modelhost import checkpoints, loading
from modelhost.checkpoints import Placement, gguf
from modelhost.checkpoints.hub import INDEX, SINGLE
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.types import ModelSpec, Sampling, Turn

CPU = torch.device("cpu")


def spec_of(folder):
    return ModelSpec(model=str(folder), device="cpu")


def edit(name, **changes):
    """A way to break a folder: other values in one of its JSON files."""

    def change(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return change


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


BROKEN = {
    "no config": (remove("config.json"), "config.json"),
    "config that is not JSON": (write("config.json", "{'a': 1}"), "config.json"),
    "config that is cut": (cut("config.json", 40), "config.json"),
    "config that is a list": (write("config.json", "[]"), "config.json"),
    "config without architecture": (edit("config.json", architectures=None), "config.json"),
    "architectures that are no list": (edit("config.json", architectures=5), "config.json"),
    "not a language model": (edit("config.json", architectures=["BertModel"]), "config.json"),
    "unknown model type": (edit("config.json", model_type="nope"), "config.json"),
    "no model type": (write("config.json", '{"architectures": ["XForCausalLM"]}'), "config.json"),
    "nonsense in the config": (edit("config.json", hidden_size="wide"), "config.json"),
    "unknown dtype": (edit("config.json", dtype="nope"), "config.json"),
    "no weights": (remove(SINGLE), SINGLE),
    "empty weights": (cut(SINGLE, 0), SINGLE),
    "weights cut in the header": (cut(SINGLE, 1000), SINGLE),
    "weights cut at the end": (cut(SINGLE, -100), SINGLE),
    "weights that are no safetensors": (write(SINGLE, "hello " * 100), SINGLE),
    "missing shard": (
        write(INDEX, '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'),
        "model-00001-of-00002.safetensors",
    ),
    "index that is a list": (write(INDEX, "[]"), INDEX),
    "index that is not JSON": (write(INDEX, "{"), INDEX),
    "index that names nothing": (write(INDEX, '{"weight_map": {}}'), INDEX),
    "index that leaves the folder": (write(INDEX, '{"weight_map": {"a": "../x"}}'), INDEX),
    "index that names no file": (write(INDEX, '{"weight_map": {"a": 5}}'), INDEX),
    "fewer layers than configured": (edit("config.json", num_hidden_layers=5), "lacks the weights"),
    "other sizes than configured": (edit("config.json", hidden_size=64), "config.json"),
    "a smaller vocabulary": (edit("config.json", vocab_size=100), "config.json"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    "no tokenizer.json": (remove("tokenizer.json"), "tokenizer"),
    "tokenizer without content": (write("tokenizer.json", "{}"), "tokenizer"),
    "tokenizer config that is a list": (write("tokenizer_config.json", "[]"), "tokenizer"),
    "no chat template": (remove("chat_template.jinja"), "chat template"),
    "chat template with an error": (write("chat_template.jinja", "{% if %}"), "chat template"),
    "chat template that refuses": (
        write("chat_template.jinja", "{{ raise_exception('never') }}"),
        "chat template",
    ),
    "generation config that is not JSON": (
        write("generation_config.json", "{"),
        "generation_config.json",
    ),
    "generation config that is a list": (
        write("generation_config.json", "[]"),
        "generation_config.json",
    ),
    "quantization that is not installed": (
        edit("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_in_a_sentence_that_names_the_trouble(folder, case):
    break_it, named = BROKEN[case]
    break_it(folder)

    with pytest.raises(LoadFailed) as refusal:
        loading.load(spec_of(folder), Progress())

    sentence = str(refusal.value)
    assert str(folder) in sentence
    assert named in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert ".." not in sentence.replace(str(folder), "")


def test_a_refused_folder_leaves_no_engine_running(folder):
    before = set(threading.enumerate())
    write("chat_template.jinja", "{{ raise_exception('never') }}")(folder)

    with pytest.raises(LoadFailed):
        loading.load(spec_of(folder), Progress())

    left = [one for one in set(threading.enumerate()) - before if type(one).__name__ != "TMonitor"]
    for thread in left:
        thread.join(10)
    assert not any(thread.is_alive() for thread in left)


def test_a_good_folder_loads_and_answers(folder, finish):
    progress = Progress()

    engine = loading.load(spec_of(folder), progress)

    ticket = engine.submit(engine.render([Turn("user", "hi")]).token_ids, Sampling(max_tokens=5))
    assert len(finish(ticket)) == 5
    engine.stop()
    assert engine.card.name == "model"
    assert engine.card.architecture == "LlamaForCausalLM"
    assert (engine.card.device, engine.card.dtype) == ("cpu", "float32")
    assert progress.snapshot.stage == "Making the first token"


def test_a_folder_in_shards_loads(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in shards.items():
        save_file({name: tensors[name] for name in some}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, some in shards.items() for name in some}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / SINGLE).unlink()
    checkpoint = checkpoints.locate(spec_of(folder), Progress())

    loaded = checkpoint.load(Placement(CPU, torch.float32), Progress())

    described = checkpoint.describe(Placement(CPU, torch.float32))
    assert described.parameters == loaded.model.num_parameters()


def test_a_description_comes_from_the_small_files(folder):
    checkpoint = checkpoints.locate(spec_of(folder), Progress())

    described = checkpoint.describe(Placement(CPU, torch.float16))

    parameters = described.parameters
    assert described.as_json() == {
        "name": "model",
        "revision": checkpoint.revision,
        "kind": "hub",
        "architecture": "LlamaForCausalLM",
        "parameters": parameters,
        "dtype": "float16",
        "device": "cpu",
        "context_length": 512,
        "memory_bytes": 2 * parameters,
        "files": [str(file) for file in checkpoints.hub.files_read(folder)],
        "adapter": "",
    }
    assert parameters > 10_000


def test_the_revision_of_a_folder_tells_versions_apart(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    first = checkpoints.locate(spec_of(folder), Progress()).revision

    assert checkpoints.locate(spec_of(copy), Progress()).revision == first
    edit("generation_config.json", max_length=7)(copy)
    assert checkpoints.locate(spec_of(copy), Progress()).revision != first


def test_a_model_that_does_not_say_its_context_has_a_modest_one():
    assert (
        checkpoints.base.context_length(
            SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=3))
        )
        == 2048
    )


# No code of a checkpoint runs

BOOBY_TRAP = """
from pathlib import Path
Path({canary!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): pass
class Model(LlamaForCausalLM): pass
class Tokenizer(PreTrainedTokenizerFast): pass
"""
AUTO_MAP = {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model"}


class Pickled:
    """Touches a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def test_the_code_of_a_folder_does_not_run_when_its_architecture_is_known(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "trap.py").write_text(BOOBY_TRAP.format(canary=str(canary)))
    edit("config.json", auto_map=AUTO_MAP, _attn_implementation_internal="someone/trap")(folder)

    loading.load(spec_of(folder), Progress()).stop()  # with transformers' own Llama

    assert not canary.exists()


@pytest.mark.parametrize(
    "break_it",
    [
        edit("config.json", auto_map=AUTO_MAP, model_type="trap"),
        edit("config.json", auto_map=AUTO_MAP, model_type="trap", architectures=["Model"]),
        edit(
            "tokenizer_config.json",
            auto_map={"AutoTokenizer": ["trap.Tokenizer", "trap.Tokenizer"]},
            tokenizer_class="Tokenizer",
        ),
    ],
)
def test_a_folder_that_needs_its_own_code_is_refused_and_its_code_does_not_run(
    folder, tmp_path, break_it
):
    canary = tmp_path / "canary"
    (folder / "trap.py").write_text(BOOBY_TRAP.format(canary=str(canary)))
    break_it(folder)

    with pytest.raises(LoadFailed):
        loading.load(spec_of(folder), Progress())

    assert not canary.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model.bin.index.json"])
def test_a_folder_of_pickles_is_refused_and_nothing_is_unpickled(folder, tmp_path, name):
    canary = tmp_path / "canary"
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(pickle.dumps(Pickled(canary)))

    with pytest.raises(LoadFailed, match="safetensors only"):
        loading.load(spec_of(folder), Progress())

    assert not canary.exists()


def test_a_pickle_beside_the_weights_is_not_read(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Pickled(canary)))

    loading.load(spec_of(folder), Progress()).stop()

    assert not canary.exists()


# Names


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing", "~nobody-at-all/x"])
def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(LoadFailed, match="There is no folder"):
        checkpoints.locate(ModelSpec(model=name), Progress())


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a//b", "a b", "a/b/c"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name):
    with pytest.raises(LoadFailed, match="neither a folder nor a hub id"):
        checkpoints.locate(ModelSpec(model=name), Progress())


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


# The demo model


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

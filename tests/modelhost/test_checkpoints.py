"""Checkpoints: found, described and loaded, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelhost import checkpoints, loading, template
from modelhost.checkpoints import Placement
from modelhost.checkpoints.files import fingerprint
from modelhost.checkpoints.shards import INDEX, SINGLE
from modelhost.errors import LoadFailed, first_line
from modelhost.progress import Progress
from modelhost.types import ModelSpec, Sampling, Turn
from tests.modelhost.conftest import CPU
from tests.modelhost.folders import cut, edit, pipe, remove, spec_of, write


def larger_tokenizer(folder):
    """A way to break a folder: its tokenizer is that of a larger model."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["i"] = 5000
    file.write_text(json.dumps(content))


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
    "index that names the folder": (write(INDEX, '{"weight_map": {"a": ""}}'), INDEX),
    "index that names what no disk has": (
        write(INDEX, json.dumps({"weight_map": {"a": "x" * 5000}})),
        f"{INDEX} is not usable: its weight_map",
    ),
    "index that names half a character": (
        write(INDEX, json.dumps({"weight_map": {"a": "\ud800"}})),
        f"{INDEX} is not usable: its weight_map",
    ),
    "config that is a pipe": (pipe("config.json"), "config.json"),
    "weights that are a pipe": (pipe(SINGLE), SINGLE),
    "layers without end": (
        edit("config.json", num_hidden_layers=10**9),
        "config.json says num_hidden_layers: 1000000000",
    ),
    "labels without end": (
        edit("config.json", num_labels=10**9),
        "config.json says num_labels: 1000000000",
    ),
    "no room for a token": (
        edit("config.json", max_position_embeddings=0),
        "config.json says that a context has 0 tokens",
    ),
    "layers without end in a part": (
        edit("config.json", text_config={"n_layer": 10**9}),
        "config.json says n_layer: 1000000000",
    ),
    "fewer layers than configured": (edit("config.json", num_hidden_layers=5), "lacks the weights"),
    "other sizes than configured": (edit("config.json", hidden_size=64), "config.json"),
    "config of a far larger model": (
        edit("config.json", vocab_size=3000),
        "config.json describes 210592 parameters; the weights beside it are 36832",
    ),
    "a smaller vocabulary": (edit("config.json", vocab_size=100), "config.json"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    "no tokenizer.json": (remove("tokenizer.json"), "tokenizer"),
    "tokenizer without content": (write("tokenizer.json", "{}"), "tokenizer"),
    "tokenizer config that is a list": (write("tokenizer_config.json", "[]"), "tokenizer"),
    "no chat template": (remove("chat_template.jinja"), "chat template"),
    "chat template with an error": (write("chat_template.jinja", "{% if %}"), "chat template"),
    "tokenizer of a larger model": (larger_tokenizer, "its tokenizer gives ids"),
    "chat template that writes without measure": (
        write("chat_template.jinja", "{{ 'x' * 1000000 }}"),
        "chat template writes 1000000 characters",
    ),
    "chat template that writes half a character": (
        write("chat_template.jinja", "{{ '\\ud800' }}{{ messages[0].content }}"),
        "no usable tokenizer",
    ),
    "tokenizer that knows no unknown": (
        edit("tokenizer_config.json", tokenizer_class="BertTokenizer"),
        "no usable tokenizer",
    ),
    "tokenizer with a text for a length": (
        edit("tokenizer_config.json", model_max_length="long"),
        "no usable tokenizer",
    ),
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
        "requires optimum",
    ),
}

ENDLESS = "{% for one in range(99999) %}{% for other in range(99999) %}{% endfor %}{% endfor %}"


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


def test_a_chat_template_without_end_is_refused_before_weights_are_read(folder, monkeypatch):
    monkeypatch.setattr(template, "PATIENCE", 0.2)
    write("chat_template.jinja", ENDLESS)(folder)
    progress = Progress()

    with pytest.raises(LoadFailed, match=r"chat template .*has not come to an end after 0\.2 s"):
        loading.load(spec_of(folder), progress)

    assert progress.snapshot.stage == "Looking for the model"


def test_a_description_says_that_a_context_has_no_length(folder):
    factors = {"long_factor": [1.0] * 4, "short_factor": [1.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": "x"}
    edit("config.json", rope_parameters=rope | factors)(folder)

    with pytest.raises(LoadFailed, match=r"config\.json does not say how long a context may be"):
        loading.describe(spec_of(folder))


@pytest.mark.parametrize(
    ("method", "library"),
    [
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "gptqmodel"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
        ({"quant_method": "hqq", "quant_config": {}}, "HQQ"),
    ],
)
def test_a_description_names_the_library_that_quantized_weights_lack(folder, method, library):
    edit("config.json", quantization_config=method)(folder)
    with pytest.raises(LoadFailed, match=library) as described:
        loading.describe(spec_of(folder))
    with pytest.raises(LoadFailed) as refused:
        loading.load(spec_of(folder), Progress())

    assert str(described.value) == str(refused.value)


def test_eight_bit_floats_need_no_library(folder):
    edit("config.json", quantization_config={"quant_method": "fp8"})(folder)

    assert loading.describe(spec_of(folder)).architecture == "LlamaForCausalLM"


def test_a_refused_folder_leaves_no_engine_running(folder):
    before = set(threading.enumerate())
    write("chat_template.jinja", "{{ raise_exception('never') }}")(folder)

    with pytest.raises(LoadFailed):
        loading.load(spec_of(folder), Progress())

    left = [one for one in set(threading.enumerate()) - before if type(one).__name__ != "TMonitor"]
    for thread in left:
        thread.join(10)
    assert not any(thread.is_alive() for thread in left)


def test_a_cache_larger_than_the_memory_is_refused_by_its_settings_name(tiny_folder):
    spec = ModelSpec(model=str(tiny_folder), device="cpu", cache_tokens=10**12)

    with pytest.raises(LoadFailed, match=r"with its cache does not fit.*LLMSITE_CACHE_TOKENS"):
        loading.load(spec, Progress())


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


def test_what_else_lies_in_a_folder_is_nobodys_business(folder):
    known = loading.describe(spec_of(folder))
    (folder / "gone.json").symlink_to("nowhere")
    (folder / "itself.json").symlink_to("itself.json")
    (folder / "folder.json").mkdir()
    pipe("pipe.json")(folder)
    pipe(INDEX)(folder)

    assert loading.describe(spec_of(folder)) == known


def test_a_file_that_goes_while_it_is_read_is_a_sentence(tmp_path):
    with pytest.raises(
        LoadFailed, match=r"gone\.json cannot be read \(No such file or directory\)"
    ):
        fingerprint([tmp_path / "gone.json"])


def test_a_folder_has_no_other_revisions(folder):
    for model in (str(folder), "demo"):
        with pytest.raises(LoadFailed, match="revision main cannot be used"):
            checkpoints.locate(ModelSpec(model=model, revision="main"), Progress())


def test_the_revision_of_a_folder_tells_versions_apart(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    first = checkpoints.locate(spec_of(folder), Progress()).revision

    assert checkpoints.locate(spec_of(copy), Progress()).revision == first
    edit("generation_config.json", max_length=7)(copy)
    assert checkpoints.locate(spec_of(copy), Progress()).revision != first


def test_a_model_that_does_not_say_its_context_has_a_modest_one():
    assert (
        checkpoints.config.context_length(
            SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=3))
        )
        == 2048
    )


def test_ids_that_end_a_turn_are_config_jsons_where_nothing_else_names_them(folder):
    remove("generation_config.json")(folder)
    edit("config.json", eos_token_id=[2, 77])(folder)

    chat_format = checkpoints.locate(spec_of(folder), Progress()).chat_format()

    assert chat_format.stop_ids == {2, 77}


def test_an_attention_that_the_config_names_does_not_matter(folder, finish):
    edit("config.json", _attn_implementation="flash_attention_2")(folder)

    assert loading.describe(spec_of(folder)).parameters
    engine = loading.load(spec_of(folder), Progress())

    ticket = engine.submit(engine.render([Turn("user", "hi")]).token_ids, Sampling(max_tokens=2))
    assert len(finish(ticket)) == 2
    engine.stop()


@pytest.mark.parametrize("ask", [loading.describe, lambda spec: loading.load(spec, Progress())])
def test_positions_of_an_unknown_kind_are_a_sentence(folder, ask):
    edit("config.json", rope_parameters={"rope_type": "nope", "rope_theta": 1e4})(folder)

    with pytest.raises(LoadFailed, match=r"KeyError 'nope'\.$"):
        ask(spec_of(folder))


def test_what_a_library_says_behind_a_colon_is_part_of_the_sentence():
    assert first_line(ValueError("It is wrong:\n  the size.\nA hint.")) == "It is wrong: the size"
    assert first_line(ValueError("It is wrong.\nA hint.")) == "It is wrong"
    assert first_line(KeyError("size")) == "KeyError 'size'"
    assert first_line(ValueError()) == "ValueError"


def test_a_refusal_is_one_line_of_a_bounded_length_whatever_a_file_calls_its_tensors():
    refusal = str(LoadFailed(f"m.safetensors holds a\nb\ud800{'y' * 100_000}. Download it again."))

    assert refusal.startswith("m.safetensors holds a b yyy")
    assert refusal.endswith("yyy. Download it again.")
    assert len(refusal) < 1100


def test_weights_in_eight_bit_floats_and_those_beside_them_become_what_is_computed_in(folder):
    size = 16  # of a block with a scale
    tensors, whole = load_file(folder / SINGLE), {}
    for name, weight in list(tensors.items()):
        tensors[name] = weight.bfloat16()
        if "_proj" in name:
            rows, columns = weight.shape
            blocks = weight.view(rows // size, size, columns // size, size)
            scales = blocks.abs().amax((1, 3)) / 448
            small = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
            wide = small.float() * scales[:, None, :, None]
            tensors[name], whole[name] = small.view(rows, columns), wide.view(rows, columns)
            tensors[f"{name}_scale_inv"] = scales
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    how = {"quant_method": "fp8", "weight_block_size": [size, size]}
    edit("config.json", quantization_config=how)(folder)

    loaded = checkpoints.locate(spec_of(folder), Progress()).load(
        Placement(CPU, torch.float32), Progress()
    )

    for name, weight in loaded.model.named_parameters():
        expected = whole[name] if name in whole else tensors[name].float()
        torch.testing.assert_close(weight.detach(), expected)  # of the same dtype, too

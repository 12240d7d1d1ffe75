"""Broken folders: each refused in one sentence that names the trouble."""

from __future__ import annotations

import json
import threading

import pytest

from modelhost import loading, template
from modelhost.checkpoints.shards import INDEX, SINGLE
from modelhost.errors import LoadFailed, first_line
from modelhost.progress import Progress
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


def test_a_refused_folder_leaves_no_engine_running(folder):
    before = set(threading.enumerate())
    write("chat_template.jinja", "{{ raise_exception('never') }}")(folder)

    with pytest.raises(LoadFailed):
        loading.load(spec_of(folder), Progress())

    left = [one for one in set(threading.enumerate()) - before if type(one).__name__ != "TMonitor"]
    for thread in left:
        thread.join(10)
    assert not any(thread.is_alive() for thread in left)


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

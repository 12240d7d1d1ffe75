"""Eight-bit weights: smaller, nearly the same answers; a sentence where it cannot be done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modelhost import __main__ as command_line
from modelhost.checkpoints import quantization
from modelhost.checkpoints.quantization import Quantization, Quantizer
from modelhost.cpu import eight_bits
from modelhost.errors import LoadFailed

ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MEMORYLESS = torch.device("meta")  # for a card: whatever is computed there has no numbers
SHARED = ROOT.parent / "shared" / "chatglm3"

needs_checkpoint = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference checkpoint of ChatGLM3 is not beside the repository"
)


def modelhost(*arguments: str, line: dict | None = None) -> dict:
    """One answer of the command line, in a process of its own: torchao may log while it loads."""
    done = subprocess.run(
        [sys.executable, "-m", "modelhost", *arguments],
        cwd=ROOT,
        input=json.dumps(line) if line else "",
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


@needs_checkpoint
def test_chatglm_answers_with_eight_bit_weights():
    case = json.loads((SHARED / "cases.json").read_text())[1]
    line = {"token_ids": case["input_ids"], "max_tokens": 4}

    answer = modelhost(
        "generate", "--model", str(SHARED / "chatglm3-tiny"), "--quantize", "int8", line=line
    )

    assert answer["token_ids"][0] == case["greedy_ids"][0]


@pytest.mark.model
def test_the_demo_model_still_knows_paris():
    turns = [{"role": "user", "content": "What is the capital of France?"}]

    answer = modelhost("generate", "--quantize", "int8", line={"turns": turns})

    assert answer["text"] == "The capital of France is Paris."


@needs_checkpoint
def test_inspect_says_how_much_memory_it_saves():
    model = ["--model", str(SHARED / "chatglm3-tiny"), "--device", "cpu", "--dtype", "bf16"]

    whole = modelhost("inspect", *model)
    small = modelhost("inspect", *model, "--quantize", "int8")

    layers = 2 * (128 * 32 + 32 * 64 + 176 * 32 + 32 * 88)
    assert whole["memory_bytes"] - small["memory_bytes"] == layers


@pytest.mark.parametrize(("name", "reason"), [("int3", "int8 or int4"), ("int4", "CUDA")])
def test_what_cannot_be_done_is_a_sentence(name, reason):
    with pytest.raises(LoadFailed, match=reason):
        quantization.pick(name, CPU)


without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


@without_cuda
def test_four_bits_are_refused_on_a_cpu_before_anything_is_loaded(tmp_path, capfd):
    code = command_line.main(["generate", "--model", str(tmp_path), "--quantize", "int4"])

    assert code == 1
    assert capfd.readouterr().err == "int4 needs a CUDA device; on a CPU use int8.\n"


@pytest.fixture
def model() -> torch.nn.Module:
    """Two linear layers, an output layer and a norm."""

    def linear() -> torch.nn.Linear:
        return torch.nn.Linear(1024, 128, bias=False, dtype=torch.bfloat16)

    layers = torch.nn.ModuleDict({"one": linear(), "other": linear(), "norm": torch.nn.RMSNorm(8)})
    return torch.nn.ModuleDict({"some": layers, "lm_head": linear()})


def test_a_layer_goes_to_its_device_before_it_is_quantized_and_the_next_one_after_it(model):
    quantizer = Quantizer(Quantization.INT8, MEMORYLESS)
    quantize, seen = quantizer._quantize, []

    def watched(model, path):
        seen.append((path, [layer.weight.device.type for layer in model["some"].values()]))
        quantize(model, path)

    quantizer._quantize = watched
    quantizer.whole(model)

    assert seen == [("some.one", ["meta", "cpu", "cpu"]), ("some.other", ["meta", "meta", "cpu"])]
    assert model["lm_head"].weight.device == CPU


def test_four_bits_are_packed_on_the_device_by_no_library_but_torchao(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))  # torchao asks first

    Quantizer(Quantization.INT4, MEMORYLESS).whole(model)  # a CPU has no kernel that packs them

    weights = [model["some"][name].weight for name in ("one", "other")]
    assert [type(weight).__name__ for weight in weights] == ["Int4TilePackedTo4dTensor"] * 2


@without_cuda
def test_a_layer_that_cannot_go_to_the_device_is_a_sentence(model):
    with pytest.raises(LoadFailed, match=r"some\.one cannot be quantized here"):
        Quantizer(Quantization.INT4, CUDA).whole(model)


def test_a_device_without_room_is_the_loaders_to_explain(model):
    def overflow(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    quantizer = Quantizer(Quantization.INT8, CPU)
    quantizer._quantize = overflow

    with pytest.raises(torch.OutOfMemoryError):
        quantizer.whole(model)


def test_a_missing_library_is_a_sentence(monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(LoadFailed, match=r"requirements-quantize\.txt"):
        quantization.pick("int8", CUDA)
    if eight_bits.supported():
        assert quantization.pick("int8", CPU) == "int8", "a CPU needs no library"


def test_empty_is_no_quantization():
    assert quantization.pick("", CPU) is None

"""Eight-bit weights: smaller, nearly the same answers; a sentence where it cannot be done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modelhost import __main__ as command_line
from modelhost import eight_bits
from modelhost.checkpoints import quantization
from modelhost.errors import LoadFailed

ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
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


@without_cuda
def test_four_bits_ask_for_no_library_but_torchao():
    layer = torch.nn.Linear(1024, 128, bias=False, dtype=torch.bfloat16)
    model = torch.nn.ModuleDict({"some": torch.nn.ModuleDict({"layer": layer})})

    with pytest.raises(LoadFailed) as refused:  # it is not on a card
        quantization.Quantizer(quantization.Quantization.INT4, CUDA).whole(model)

    assert "some.layer cannot be quantized here" in str(refused.value)
    assert "Requires" not in str(refused.value)


def test_a_missing_library_is_a_sentence(monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(LoadFailed, match=r"requirements-quantize\.txt"):
        quantization.pick("int8", CUDA)
    if eight_bits.supported():
        assert quantization.pick("int8", CPU) == "int8", "a CPU needs no library"


def test_empty_is_no_quantization():
    assert quantization.pick("", CPU) is None

"""Weights wait in the 16 bits of their file until they are packed for a CPU, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaForCausalLM

from modelhost.checkpoints import Placement, locate
from modelhost.checkpoints.hub import load_folder
from modelhost.checkpoints.shards import SINGLE
from modelhost.cpu import halves, packing
from modelhost.loading import describe
from modelhost.progress import Progress
from modelhost.types import ModelSpec
from tests.modelhost.conftest import make_tokenizer
from tests.modelhost.test_chatglm import LORA, SHARED, TINY, loaded

WIDE = Placement(torch.device("cpu"), torch.float32)
WAITS = Placement(torch.device("cpu"), torch.float32, halves=True)

needs_halves = pytest.mark.skipif(
    not halves.available(), reason="this processor or PyTorch has no FBGEMM"
)
needs_reference = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference checkpoint of ChatGLM3 is not beside the repository"
)


# Models in the layout of `save_pretrained`.


def store(folder: Path, dtype: torch.dtype, *, only: Callable[[str], bool] = lambda _: True):
    """Store a folder's weights so."""
    tensors = load_file(folder / SINGLE)
    small = {name: one.to(dtype) if only(name) else one for name, one in tensors.items()}
    save_file(small, folder / SINGLE, metadata={"format": "pt"})


def dtypes(model: torch.nn.Module) -> dict[str, torch.dtype]:
    return {name: one.dtype for name, one in model.named_parameters()}


@needs_halves
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_a_models_linear_layers_wait_and_say_the_same(folder, dtype):
    store(folder, dtype)
    ids = torch.arange(3, 60).unsqueeze(0)
    plain, waiting = (load_folder(folder, where, Progress()).model for where in (WIDE, WAITS))
    assert set(dtypes(plain).values()) == {torch.float32}
    for name, found in dtypes(waiting).items():
        assert found == (dtype if name.endswith(("proj.weight", "head.weight")) else torch.float32)

    assert packing.pack(plain)
    assert packing.pack(waiting)

    assert torch.equal(waiting(ids).logits, plain(ids).logits)
    assert set(dtypes(waiting).values()) == {torch.float32}


@pytest.mark.parametrize(
    ("dtype", "only"),
    [(torch.float32, lambda _: True), (torch.float16, lambda name: "mlp" in name)],
    ids=["32 bits", "32 bits and 16"],
)
def test_what_is_stored_in_more_bits_does_not_wait(folder, dtype, only):
    store(folder, dtype, only=only)
    before = load_file(folder / SINGLE)

    model = load_folder(folder, WAITS, Progress()).model

    assert set(dtypes(model).values()) == {torch.float32}
    assert all(
        torch.equal(one, before[name].float())
        for name, one in model.state_dict().items()
        if name in before
    )


@needs_halves
@torch.inference_mode()
def test_a_model_whose_output_is_its_embedding_keeps_that_wide(folder):
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / SINGLE)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    store(folder, torch.float16)
    ids = torch.arange(3, 60).unsqueeze(0)
    plain, waiting = (load_folder(folder, where, Progress()).model for where in (WIDE, WAITS))
    assert waiting.lm_head.weight is waiting.model.embed_tokens.weight
    assert waiting.lm_head.weight.dtype == torch.float32

    packing.pack(plain)
    packing.pack(waiting)

    assert torch.equal(waiting(ids).logits, plain(ids).logits)
    assert waiting.num_parameters() == plain.num_parameters()
    described = locate(ModelSpec(model=str(folder), device="cpu"), Progress()).describe(WAITS)
    inside = sum(one.numel() for name, one in tensors.items() if name.endswith("proj.weight"))
    assert described.memory_bytes == 4 * described.parameters - 2 * inside


@torch.inference_mode()
def test_a_model_that_computes_constants_in_its_dtype_is_loaded_wide(tmp_path):
    tokenizer = make_tokenizer()
    shape = {"hidden_size": 40, "head_dim": 8, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = Gemma3TextConfig(vocab_size=len(tokenizer), **shape, **heads)
    Gemma3ForCausalLM(config).half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    model = load_folder(tmp_path, WAITS, Progress()).model

    assert set(dtypes(model).values()) == {torch.float32}
    # In 16 bits it would be 6.3242.
    assert float(model.model.embed_tokens.embed_scale) == pytest.approx(40**0.5, rel=1e-7)


@needs_halves
def test_a_description_counts_what_waits_with_its_bytes(folder):
    checkpoint = locate(ModelSpec(model=str(folder), device="cpu"), Progress())
    assert checkpoint.describe(WAITS).memory_bytes == 4 * checkpoint.describe(WAITS).parameters

    store(folder, torch.bfloat16)

    known = checkpoint.describe(WAITS)
    model = load_folder(folder, WIDE, Progress()).model
    assert isinstance(model, LlamaForCausalLM)
    linear = sum(one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear))
    assert known.memory_bytes == 4 * known.parameters - 2 * linear
    assert checkpoint.describe(WIDE).memory_bytes == 4 * known.parameters


# ChatGLM.


@needs_reference
@needs_halves
def test_in_float32_on_a_cpu_linear_layers_take_the_bytes_that_they_have_in_the_file():
    known = describe(ModelSpec(model=str(TINY), device="cpu", dtype="fp32"))
    adapted = describe(ModelSpec(model=str(TINY), adapter=LORA, device="cpu", dtype="fp32"))

    inside = 2 * (128 * 32 + 32 * 64 + 176 * 32 + 32 * 88)
    output = 65_024 * 32
    assert known.memory_bytes == 4 * known.parameters - 2 * (inside + output)
    changed = adapted.memory_bytes - known.memory_bytes
    assert 0 < changed <= 2 * inside, "what an adapter changes needs 32 bits"


@needs_reference
@needs_halves
@pytest.mark.parametrize("adapter", [None, LORA])
@torch.inference_mode()
def test_layers_that_waited_in_16_bits_say_the_same(adapter):
    ids = torch.tensor([json.loads((SHARED / "cases.json").read_text())[1]["input_ids"]])
    plain, waiting = loaded(adapter=adapter).model, loaded(adapter=adapter, waits=True).model
    assert waiting.lm_head.weight.dtype == torch.float16, "else nothing waited"

    packing.pack(waiting)

    torch.testing.assert_close(waiting(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
    left = {one.dtype for one in waiting.parameters()}
    assert left == {torch.float32}


@needs_reference
@needs_halves
@torch.inference_mode()
def test_layers_that_waited_and_cannot_be_packed_are_float32s(monkeypatch):
    ids = torch.tensor([json.loads((SHARED / "cases.json").read_text())[1]["input_ids"]])
    plain, waiting = loaded().model, loaded(waits=True).model
    monkeypatch.setattr(packing, "joined", broken)

    assert packing.pack(waiting) == 0

    assert torch.equal(waiting(ids).logits, plain(ids).logits)


def broken(linears: object) -> None:
    raise RuntimeError("no such operator")

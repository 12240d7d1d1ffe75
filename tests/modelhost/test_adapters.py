"""LoRA adapters for ChatGLM: those that fit are merged, the others refused with the reason."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelhost.checkpoints.adapter import Adapter
from modelhost.errors import LoadFailed
from tests.modelhost.folders import pipe
from tests.modelhost.test_chatglm import LORA, SHARED, loaded

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference checkpoint of ChatGLM3 is not beside the repository"
)


@pytest.fixture
def lora(tmp_path):
    folder = tmp_path / "my-lora"
    shutil.copytree(LORA, folder, copy_function=shutil.copyfile)
    return folder


def change_adapter(folder: Path, **values) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def other_rank(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {k: v[:, :-1].clone() if "lora_A" in k else v for k, v in tensors.items()},
        folder / "adapter_model.safetensors",
    )


def other_target(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {k.replace("query_key_value", "q_proj"): v for k, v in tensors.items()},
        folder / "adapter_model.safetensors",
    )


def instead(content: bytes) -> Callable[[Path], object]:
    """A way to break an adapter: this file for its weights."""

    def change(folder: Path) -> None:
        (folder / "adapter_model.safetensors").unlink()
        (folder / "adapter_model.bin").write_bytes(content)

    return change


def reshaped(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    """A way to break an adapter: each of its matrices so."""

    def reshape(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file({name: change(matrix) for name, matrix in load_file(file).items()}, file)

    return reshape


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


UNFIT = {
    "P-tuning": (lambda f: change_adapter(f, peft_type="P_TUNING"), "P_TUNING"),
    "prefix tuning": (lambda f: change_adapter(f, peft_type="PREFIX_TUNING"), "PREFIX_TUNING"),
    "DoRA": (lambda f: change_adapter(f, use_dora=True), "DoRA"),
    "biases": (lambda f: change_adapter(f, bias="all"), "bias"),
    "other shapes": (other_rank, "trained on another model"),
    "other targets": (other_target, "q_proj"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model"),
    "cut weights": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{"),
        "damaged",
    ),
    "a git-lfs pointer": (instead(b"version https://git-lfs.github.com/spec/v1\n"), "damaged"),
    "a web page": (instead(b"<!doctype html><title>404</title>" * 50), "damaged"),
    "nothing": (instead(b""), "damaged"),
    "cut pickled weights": (instead(saved({"a": torch.ones(9)})[:-200]), "damaged"),
    "code": (instead(saved(Path("x"))), "code, which is never run"),
    "a list": (instead(saved([torch.ones(1)])), "damaged"),
    "texts": (instead(saved({"a": "text"})), "damaged"),
    "a text for alpha": (
        lambda f: change_adapter(f, lora_alpha="much"),
        "my-lora/adapter_config.json says no usable lora_alpha",
    ),
    "a list of patterns": (lambda f: change_adapter(f, alpha_pattern=["x"]), "alpha_pattern"),
    "a pattern that is none": (
        lambda f: change_adapter(f, alpha_pattern={"(": 1}),
        "alpha_pattern",
    ),
    "a folder for a config": (
        lambda f: ((f / "adapter_config.json").unlink(), (f / "adapter_config.json").mkdir()),
        "my-lora has no adapter_config.json",
    ),
    "a pipe for weights": (pipe("adapter_model.safetensors"), "has neither"),
    "a config that never ends": (
        lambda f: (f / "adapter_config.json").write_text("[" * 100_000),
        "adapter_config.json",
    ),
    "rows": (reshaped(lambda matrix: matrix.flatten().clone()), "no matrix"),
    "no rank": (reshaped(lambda matrix: matrix[:0, :0].clone()), "no matrix"),
    "no names": (instead(saved({1: torch.ones(1)})), "damaged"),
}


@pytest.mark.parametrize(("break_it", "named"), UNFIT.values(), ids=UNFIT)
def test_an_adapter_that_does_not_fit_is_refused_with_the_reason(lora, break_it, named):
    break_it(lora)

    with pytest.raises(LoadFailed, match=named):
        loaded(adapter=lora)


def test_pickled_weights_are_those_of_safetensors(lora):
    plain = loaded(adapter=lora)
    state = load_file(lora / "adapter_model.safetensors")
    instead(saved(state))(lora)

    again = loaded(adapter=lora)

    assert all(map(torch.equal, plain.model.parameters(), again.model.parameters()))


def test_the_p_tuning_checkpoint_of_the_older_release_is_recognised(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"pre_seq_len": 128}))

    with pytest.raises(LoadFailed, match="P-tuning"):
        Adapter(tmp_path)


def test_all_four_matrices_may_be_targets(tmp_path):
    folder = tmp_path / "wide"
    folder.mkdir()
    config = json.loads((LORA / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    base = "base_model.model.transformer.encoder.layers.1."
    shapes = {
        "self_attention.query_key_value": (128, 32),
        "self_attention.dense": (32, 64),
        "mlp.dense_h_to_4h": (176, 32),
        "mlp.dense_4h_to_h": (32, 88),
    }
    tensors = {}
    for name, (rows, columns) in shapes.items():
        tensors[f"{base}{name}.lora_A.weight"] = torch.randn(4, columns)
        tensors[f"{base}{name}.lora_B.weight"] = torch.randn(rows, 4)
    save_file(tensors, folder / "adapter_model.safetensors")

    plain, adapted = loaded(), loaded(adapter=folder)

    a, b = (tensors[f"{base}mlp.dense_4h_to_h.lora_{half}.weight"] for half in "AB")
    change = adapted.model.model.layers[1].mlp.down_proj.weight - (
        plain.model.model.layers[1].mlp.down_proj.weight
    )
    assert torch.allclose(change, (8 / 2) * (b @ a), atol=1e-4)
    untouched = adapted.model.model.layers[0].self_attn.q_proj.weight
    assert torch.equal(untouched, plain.model.model.layers[0].self_attn.q_proj.weight)


@pytest.mark.parametrize(
    ("patterns", "alpha"),
    [
        ({"dense|query_key_value": 6}, 6),
        ({r"layers\.1\.self_attention\.query_key_value": 6, "query_key_value": 2}, 6),
        ({"query_key_value": 2, r"layers\.1\.self_attention\.query_key_value": 6}, 2),
        ({"key_value": 6}, 8),
    ],
)
def test_of_the_patterns_that_name_a_target_the_first_one_counts_as_in_peft(lora, patterns, alpha):
    change_adapter(lora, lora_alpha=8, alpha_pattern=patterns)
    tensors = load_file(lora / "adapter_model.safetensors")
    base = "transformer.encoder.layers.1.self_attention.query_key_value"
    a, b = (tensors[f"base_model.model.{base}.lora_{half}.weight"] for half in "AB")
    weight = torch.zeros(b.shape[0], a.shape[1])

    changed = Adapter(lora).apply(f"{base}.weight", weight)

    assert torch.allclose(changed, alpha / a.shape[0] * (b @ a), atol=1e-6)

"""ChatGLM's published layout: its config, its weight files and its names.

Nothing here runs the network. Config and names become transformers' own; weights come from
safetensors, or from `.bin` files with `weights_only=True`.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import GlmConfig

from modelhost.checkpoints.files import first_of
from modelhost.checkpoints.shards import HALVES, SINGLE, indexed_files
from modelhost.errors import LoadFailed

ROPE_THETA = 10_000.0
PARTIAL_ROTARY = 0.5
LAYOUTS = (SINGLE, "pytorch_model.bin")  # safetensors first
DROPPED = "transformer.rotary_pos_emb.inv_freq"  # a constant that the network makes itself

RENAMED = {
    "transformer.embedding.word_embeddings.": "model.embed_tokens.",
    "transformer.encoder.layers.": "model.layers.",
    "transformer.encoder.final_layernorm.": "model.norm.",
    "transformer.output_layer.": "lm_head.",
    ".self_attention.dense.": ".self_attn.o_proj.",
    ".mlp.dense_h_to_4h.": ".mlp.gate_up_proj.",
    ".mlp.dense_4h_to_h.": ".mlp.down_proj.",
}
FUSED = ".self_attention.query_key_value."


def glm_config(folder: Path, config: dict[str, Any]) -> GlmConfig:
    """The published config in transformers' words. Raises LoadFailed, naming a missing field."""
    try:
        heads = int(config["num_attention_heads"])
        groups = int(config["multi_query_group_num"]) if config["multi_query_attention"] else heads
        return GlmConfig(
            vocab_size=int(config["padded_vocab_size"]),
            hidden_size=int(config["hidden_size"]),
            num_hidden_layers=int(config["num_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=groups,
            intermediate_size=int(config["ffn_hidden_size"]),
            head_dim=int(config["kv_channels"]),
            rms_norm_eps=float(config["layernorm_epsilon"]),
            max_position_embeddings=int(config["seq_length"]),
            attention_bias=bool(config["add_qkv_bias"]),
            rope_parameters={
                "rope_type": "default",
                "rope_theta": _rope_theta(config),
                "partial_rotary_factor": PARTIAL_ROTARY,
            },
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            pad_token_id=0,
            eos_token_id=[2],
        )
    except KeyError as error:
        raise LoadFailed(
            f"{folder / 'config.json'} lacks the field {error}. Take the file of the release."
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise LoadFailed(
            f"{folder / 'config.json'} has a field with a wrong value ({error}). "
            "Take the file of the release."
        ) from error


def _rope_theta(config: dict[str, Any]) -> float:
    """The base of the positions' angles: with 0 or less, or none, they would be no numbers."""
    theta = ROPE_THETA * float(config.get("rope_ratio", 1))
    if not 0 < theta < math.inf:
        raise ValueError(f"rope_ratio is {config['rope_ratio']}")
    return theta


def shards(folder: Path) -> list[Path]:
    """The weight files, all there. Raises LoadFailed, naming what is missing."""
    for layout in LAYOUTS:
        index = folder / f"{layout}.index.json"
        if index.is_file():
            return _indexed(folder, index)
        if (folder / layout).is_file():
            return [folder / layout]
    raise LoadFailed(
        f"{folder} has no weights: neither {LAYOUTS[0]} nor {LAYOUTS[1]} is there. "
        "Download the folder again."
    )


def is_complete(folder: Path) -> bool:
    """Whether a folder holds all the weights that its index names."""
    try:
        return bool(shards(folder))
    except LoadFailed:
        return False


def _indexed(folder: Path, index: Path) -> list[Path]:
    names = indexed_files(index)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise LoadFailed(f"{folder} lacks {first_of(missing)}. Download the missing shard.")
    return [folder / name for name in names]


def tensors_of(file: Path, *, outline: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of one shard, memory-mapped; as an outline without their numbers.

    Raises LoadFailed.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118  not a dict: it has no iterator
                    yield name, _outlined(shard, name) if outline else shard.get_tensor(name)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            yield from _only_tensors(state)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise LoadFailed(f"{file} is damaged or cut short. Download it again.") from error
    except pickle.UnpicklingError as error:
        raise LoadFailed(
            f"{file} is damaged, or holds code, which is never run. Download it again."
        ) from error


def _outlined(shard: Any, name: str) -> torch.Tensor:
    header = shard.get_slice(name)
    dtype = HALVES.get(header.get_dtype(), torch.float32)
    return torch.empty(header.get_shape(), dtype=dtype, device="meta")


def _only_tensors(state: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise ValueError("a file of weights is a dictionary of tensors")
    yield from state.items()


def convert(
    name: str, tensor: torch.Tensor, config: GlmConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """A published tensor under the native name; the fused projection in its three parts.

    That one is [(heads + 2 · groups) · head_dim, hidden], or a bias of as many rows: first the
    queries' rows, then the keys', then the values'.
    """
    if FUSED in name:
        sizes = [config.num_attention_heads * config.head_dim]
        sizes += [config.num_key_value_heads * config.head_dim] * 2
        parts = torch.split(tensor, sizes) if len(tensor) == sum(sizes) else (tensor,) * 3
        for letter, part in zip("qkv", parts, strict=True):
            yield _renamed(name.replace(FUSED, f".self_attn.{letter}_proj.")), part
    else:
        yield _renamed(name), tensor


def _renamed(name: str) -> str:
    for published, native in RENAMED.items():
        name = name.replace(published, native)
    return name


def published_shapes(config: GlmConfig) -> dict[str, tuple[int, int]]:
    """Shape of each matrix that an adapter may target, under its published name."""
    shapes: dict[str, tuple[int, int]] = {}
    rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    for layer in range(config.num_hidden_layers):
        base = f"transformer.encoder.layers.{layer}."
        shapes[f"{base}self_attention.query_key_value"] = (rows, hidden)
        shapes[f"{base}self_attention.dense"] = (
            hidden,
            config.num_attention_heads * config.head_dim,
        )
        shapes[f"{base}mlp.dense_h_to_4h"] = (2 * inner, hidden)
        shapes[f"{base}mlp.dense_4h_to_h"] = (hidden, inner)
    return shapes

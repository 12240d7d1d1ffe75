"""ChatGLM3 (and ChatGLM2, the same network) in its published layout, on transformers' own GLM.

No file of the checkpoint is executed: `auto_map` is not read, weights come from
safetensors, or from `.bin` files with `weights_only=True`. Tensors go to the device one
by one, so the host never holds more than one of them beside a memory-mapped shard.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import GlmConfig, GlmForCausalLM
from transformers.models.glm.modeling_glm import GlmRotaryEmbedding

from modelhost.chatglm import TOKENIZER_FILE, ChatGLMFormat
from modelhost.checkpoints import quantization
from modelhost.checkpoints.adapter import Adapter
from modelhost.checkpoints.base import Description, Loaded, Placement, fingerprint
from modelhost.checkpoints.quantization import Quantizer
from modelhost.errors import LoadFailed
from modelhost.progress import Progress

ROPE_THETA = 10_000.0
PARTIAL_ROTARY = 0.5
LAYOUTS = ("model.safetensors", "pytorch_model.bin")  # safetensors first
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


class ChatGLMCheckpoint:
    """A folder whose config says `model_type: chatglm`."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        name: str,
        revision: str | None,
        adapter: Adapter | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.name = name
        self.adapter = adapter
        self.revision = revision or fingerprint(self._files())

    def describe(self, where: Placement) -> Description:
        """From the config and the list of files; the network is only outlined."""
        config = glm_config(self.folder, self.config)
        shards(self.folder)
        outline = empty_model(config)
        if self.adapter:
            self.adapter.check(published_shapes(outline, config))
        parameters = sum(parameter.numel() for parameter in outline.parameters())
        return Description(
            name=self.name,
            revision=self.revision,
            kind="chatglm",
            architecture=type(outline).__name__,
            parameters=parameters,
            dtype=where.dtype_name,
            device=str(where.device),
            context_length=int(config.max_position_embeddings),
            memory_bytes=quantization.memory_bytes(outline, where.dtype, where.quantize),
            files=[str(file) for file in self._files()],
            adapter=self.adapter.label if self.adapter else "",
        )

    def chat_format(self) -> ChatGLMFormat:
        return ChatGLMFormat(self.folder / TOKENIZER_FILE)

    def load(self, where: Placement, progress: Progress) -> Loaded:
        """Outline the network, then fill it tensor by tensor. Raises LoadFailed."""
        chat_format = self.chat_format()
        config = glm_config(self.folder, self.config)
        model = empty_model(config)
        if self.adapter:
            self.adapter.check(published_shapes(model, config))
        files = shards(self.folder)
        waiting = dict(model.named_parameters())
        quantizer = Quantizer(where.quantize) if where.quantize else None
        progress.begin("Loading weights", total=len(waiting), unit="tensor")
        for file in files:
            for name, tensor in tensors_of(file):
                if name == DROPPED:
                    continue
                whole = self.adapter.apply(name, tensor) if self.adapter else tensor
                for target, part in convert(name, whole, config):
                    place(model, waiting, target, part, file=file, where=where)
                    if quantizer:
                        path = target.rpartition(".")[0]
                        quantizer.layer(path, model.get_submodule(path))
                    progress.advance()
        if waiting:
            raise LoadFailed(
                f"{self.folder} has no tensor for {next(iter(waiting))}"
                + (f" and {len(waiting) - 1} more" if len(waiting) > 1 else "")
                + ". A shard is missing from its index; download the folder again."
            )
        # A buffer that no checkpoint holds: it was outlined without memory like the rest.
        model.model.rotary_emb = GlmRotaryEmbedding(config).to(where.device)
        return Loaded(model.eval(), chat_format)

    def _files(self) -> list[Path]:
        wanted = ["config.json", TOKENIZER_FILE, "*.index.json", "model*.safetensors"]
        if not list(self.folder.glob("model*.safetensors")):
            wanted.append("pytorch_model*.bin")
        return sorted({file for pattern in wanted for file in self.folder.glob(pattern)})


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
                "rope_theta": ROPE_THETA * float(config.get("rope_ratio", 1)),
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
    except (TypeError, ValueError) as error:
        raise LoadFailed(
            f"{folder / 'config.json'} has a field of the wrong type ({error})."
        ) from error


def empty_model(config: GlmConfig) -> GlmForCausalLM:
    """The network without memory for its weights. Raises LoadFailed for a shape that none has."""
    try:
        with torch.device("meta"):
            return GlmForCausalLM._from_config(config, attn_implementation="sdpa")
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise LoadFailed(f"config.json describes no network that can be built: {error}") from error


def shards(folder: Path) -> list[Path]:
    """The weight files, all there. Raises LoadFailed, naming what is missing."""
    for layout in LAYOUTS:
        index = folder / f"{layout}.index.json"
        if index.exists():
            return _indexed(folder, index)
        if (folder / layout).exists():
            return [folder / layout]
    raise LoadFailed(f"{folder} has no weights: neither {LAYOUTS[0]} nor {LAYOUTS[1]} is there.")


def is_complete(folder: Path) -> bool:
    """Whether a folder holds all the weights that its index names."""
    try:
        return bool(shards(folder))
    except LoadFailed:
        return False


def _indexed(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LoadFailed(f"{index} cannot be read. Download it again.") from error
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LoadFailed(f"{folder} lacks {missing[0]}{more}. Download the missing shard.")
    return [folder / name for name in names]


def tensors_of(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of one shard, memory-mapped. Raises LoadFailed."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118  not a dict: it has no iterator
                    yield name, shard.get_tensor(name)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            yield from state.items()
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise LoadFailed(f"{file} is damaged or cut short. Download it again.") from error


def convert(
    name: str, tensor: torch.Tensor, config: GlmConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """A published tensor under the native name; the fused projection in its three parts."""
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


def place(
    model: nn.Module,
    waiting: dict[str, nn.Parameter],
    name: str,
    tensor: torch.Tensor,
    *,
    file: Path,
    where: Placement,
) -> None:
    """Put one tensor where the outline waits for it. Raises LoadFailed."""
    outline = waiting.pop(name, None)
    if outline is None:
        raise LoadFailed(f"{file} holds {name}, which this network has no place for.")
    if outline.shape != tensor.shape:
        raise LoadFailed(
            f"{file} holds {name} with the shape {list(tensor.shape)}; "
            f"config.json says {list(outline.shape)}."
        )
    module, _, leaf = name.rpartition(".")
    weight = tensor.to(
        device=where.device, dtype=where.dtype, copy=True
    )  # never a view of the mapped file
    setattr(model.get_submodule(module), leaf, nn.Parameter(weight, requires_grad=False))


def published_shapes(model: nn.Module, config: GlmConfig) -> dict[str, tuple[int, int]]:
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

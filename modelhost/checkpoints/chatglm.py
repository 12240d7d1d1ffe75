"""ChatGLM3 (and ChatGLM2, the same network) in its published layout, on transformers' own GLM.

No file of the checkpoint is executed: `auto_map` is not read. Tensors go to the device one by
one, so the host never holds more than one of them beside a memory-mapped shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GlmConfig, GlmForCausalLM
from transformers.models.glm.modeling_glm import GlmRotaryEmbedding

from modelhost.chatglm import TOKENIZER_FILE, ChatGLMFormat
from modelhost.checkpoints import quantization
from modelhost.checkpoints.adapter import Adapter
from modelhost.checkpoints.base import Description, Loaded, Placement
from modelhost.checkpoints.config import check_context
from modelhost.checkpoints.files import fingerprint, first_of, present
from modelhost.checkpoints.published import (
    DROPPED,
    convert,
    glm_config,
    published_shapes,
    shards,
    tensors_of,
)
from modelhost.checkpoints.quantization import Quantizer
from modelhost.cpu import waiting
from modelhost.errors import LoadFailed, first_line
from modelhost.progress import Progress


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
        """From config, tokenizer and the headers of the weights; what could not load is refused."""
        self.chat_format()
        outline, config = self._outline()
        stored = {
            name: tensor.dtype for name, tensor in self._fitting(outline, config, headers_only=True)
        }
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
            memory_bytes=(
                waiting.memory_bytes(outline, stored)
                if where.halves
                else quantization.memory_bytes(outline, where.dtype, where.quantize)
            ),
            files=[str(file) for file in self._files()],
            adapter=self.adapter.label if self.adapter else "",
        )

    def chat_format(self) -> ChatGLMFormat:
        return ChatGLMFormat(self.folder / TOKENIZER_FILE)

    def load(self, where: Placement, progress: Progress) -> Loaded:
        """Outline the network, then fill it tensor by tensor. Raises LoadFailed."""
        chat_format = self.chat_format()
        model, config = self._outline()
        quantizer = Quantizer(where.quantize, where.device) if where.quantize else None
        total = sum(1 for _ in model.parameters())
        progress.begin("Loading weights", total=total, unit="tensor")
        for name, tensor in self._fitting(model, config):
            place(model, name, tensor, where)
            if quantizer:
                quantizer.layer(model, name.rpartition(".")[0])
            progress.advance()
        # A buffer that no checkpoint holds: it was outlined without memory like the rest.
        model.model.rotary_emb = GlmRotaryEmbedding(config).to(where.device)
        return Loaded(model.eval(), chat_format)

    def _outline(self) -> tuple[GlmForCausalLM, GlmConfig]:
        """The network without memory for its weights, which the adapter fits."""
        config = glm_config(self.folder, self.config)
        check_context(self.folder / "config.json", config)
        model = empty_model(self.folder, config)
        if self.adapter:
            self.adapter.check(published_shapes(config))
        return model, config

    def _fitting(
        self, model: nn.Module, config: GlmConfig, *, headers_only: bool = False
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Every weight under its native name, each in its place once. Raises LoadFailed."""
        missing = {name: outline.shape for name, outline in model.named_parameters()}
        for file in shards(self.folder):
            for name, tensor in tensors_of(file, outline=headers_only):
                if name == DROPPED:
                    continue
                whole = self.adapter.apply(name, tensor) if self.adapter else tensor
                for target, part in convert(name, whole, config):
                    check_place(file, target, part.shape, missing.pop(target, None))
                    yield target, part
        if missing:
            raise LoadFailed(
                f"{self.folder} has no tensor for {first_of(missing)}. "
                "A shard is missing from its index; download the folder again."
            )

    def _files(self) -> list[Path]:
        wanted = ["config.json", TOKENIZER_FILE, "*.index.json", "model*.safetensors"]
        if not list(self.folder.glob("model*.safetensors")):
            wanted.append("pytorch_model*.bin")
        return present(self.folder, wanted)


def empty_model(folder: Path, config: GlmConfig) -> GlmForCausalLM:
    """The network without memory for its weights. Raises LoadFailed for a shape that none has."""
    try:
        with torch.device("meta"):
            return GlmForCausalLM._from_config(config, attn_implementation="sdpa")
    except (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError) as error:
        raise LoadFailed(
            f"{folder / 'config.json'} describes no network that can be built "
            f"({first_line(error)}). Take the file of the release."
        ) from error


def check_place(file: Path, name: str, shape: torch.Size, expected: torch.Size | None) -> None:
    """Refuse a tensor that the outline does not wait for, or not in this shape."""
    if expected is None:
        raise LoadFailed(
            f"{file} holds {name}, which the network of config.json has no place for. "
            "Take both from the same release."
        )
    if shape != expected:
        raise LoadFailed(
            f"{file} holds {name} with the shape {list(shape)}; config.json says "
            f"{list(expected)}. Take both from the same release."
        )


def place(model: nn.Module, name: str, tensor: torch.Tensor, where: Placement) -> None:
    """Put one tensor where the outline waits for it."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    waits = where.halves and waiting.may_wait(module, leaf, tensor.dtype)
    dtype = tensor.dtype if waits else where.dtype
    weight = tensor.to(device=where.device, dtype=dtype, copy=True)  # no view of the mapped file
    setattr(module, leaf, nn.Parameter(weight, requires_grad=False))

"""Weights in 8 or 4 bits, so that a model fits a smaller card or host.

On CUDA, and on CPUs without whole-number instructions, torchao does it. Each linear layer goes to
its device and is quantized there before the next one does, so a card never holds the whole model
unquantized. Nor does the host, for a ChatGLM; a folder in the hub's layout is read whole
first. Embeddings and the output layer stay.

A ChatGLM was run so on a card, in 8 and 4 bits (docs/figures.md); a folder in the hub's layout was
not: its layers were quantized on PyTorch's device without memory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from modelhost.cpu import eight_bits
from modelhost.errors import LoadFailed, first_line

OUTPUT_LAYER = "lm_head"
INT4_PACKING = "tile_packed_to_4d"  # torch's own kernels; the default needs one more library


class Quantization(StrEnum):
    """Bits of a weight."""

    INT8 = "int8"
    INT4 = "int4"


def pick(name: str, device: torch.device) -> Quantization | None:
    """The setting as a value; empty is none. Raises LoadFailed when it cannot be done here."""
    if not name:
        return None
    if name not in set(Quantization):
        raise LoadFailed(f"{name!r} is no quantization. Use int8 or int4.")
    if name == Quantization.INT4 and device.type != "cuda":
        raise LoadFailed("int4 needs a CUDA device; on a CPU use int8.")
    if not _by_ourselves(device) and importlib.util.find_spec("torchao") is None:
        raise LoadFailed(
            f"{name} needs torchao, which is not installed. "
            "Run .venv/bin/pip install -r requirements-quantize.txt."
        )
    return Quantization(name)


class Quantizer:
    """Quantizes the linear layers of a model on the device that they go to, one at a time."""

    def __init__(self, kind: Quantization, device: torch.device) -> None:
        self._device = device
        self._quantize = _replace if _by_ourselves(device) else _torchao(kind)

    def whole(self, model: nn.Module) -> None:
        """Every linear layer of a model that is already loaded. Raises what `layer` does."""
        for path in [path for path, _ in model.named_modules()]:
            self.layer(model, path)

    def layer(self, model: nn.Module, path: str) -> None:
        """One layer, if it is linear and all of it is there.

        Raises LoadFailed, torch.OutOfMemoryError.
        """
        module = model.get_submodule(path)
        if not isinstance(module, nn.Linear) or path == OUTPUT_LAYER:
            return
        if any(parameter.is_meta for parameter in module.parameters()):
            return
        try:
            module.to(self._device)  # a CPU has no kernel that packs four bits for a card
            self._quantize(model, path)
        except torch.OutOfMemoryError:  # whoever loads knows what to do about it
            raise
        except (
            RuntimeError,
            ValueError,
            ImportError,
            AssertionError,
            NotImplementedError,
        ) as error:
            raise LoadFailed(f"{path} cannot be quantized here: {first_line(error)}.") from error


def _by_ourselves(device: torch.device) -> bool:
    """Whether it is done without torchao, by `modelhost.cpu.eight_bits`."""
    return device.type == "cpu" and eight_bits.supported()


def _replace(model: nn.Module, path: str) -> None:
    linear: Any = model.get_submodule(path)
    model.set_submodule(path, eight_bits.EightBitLinear(linear))


def _torchao(kind: Quantization) -> Callable[[nn.Module, str], None]:
    from torchao import quantization as torchao  # slow to import, and optional

    config: Any = (
        torchao.Int8WeightOnlyConfig()
        if kind is Quantization.INT8
        else torchao.Int4WeightOnlyConfig(int4_packing_format=INT4_PACKING)
    )
    return lambda model, path: torchao.quantize_(model.get_submodule(path), config)


def memory_bytes(model: nn.Module, dtype: torch.dtype, kind: Quantization | None) -> int:
    """What the weights of a model, or of its outline, will take; scales are left out."""
    bits = {None: dtype.itemsize * 8, Quantization.INT8: 8, Quantization.INT4: 4}[kind]
    small = sum(
        module.weight.numel()
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path != OUTPUT_LAYER
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    return (total - small) * dtype.itemsize + small * bits // 8

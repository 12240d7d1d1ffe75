"""Weights in 8 or 4 bits through torchao, so that a model fits a smaller card.

Each linear layer is quantized as soon as its weights are there, so neither the host nor
the card ever holds the whole model unquantized. Embeddings and the output layer stay.
"""

from __future__ import annotations

import importlib.util
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from modelhost.errors import LoadFailed, first_line

OUTPUT_LAYER = "lm_head"
INT4_PACKING = "tile_packed_to_4d"  # torch's own kernels; the default needs one more library


class Quantization(StrEnum):
    """Bits of a weight; activations keep the dtype."""

    INT8 = "int8"
    INT4 = "int4"


def pick(name: str, device: torch.device) -> Quantization | None:
    """The setting as a value; empty is none. Raises LoadFailed when it cannot be done here."""
    if not name:
        return None
    if name not in set(Quantization):
        raise LoadFailed(f"{name!r} is no quantization. Use int8 or int4.")
    if importlib.util.find_spec("torchao") is None:
        raise LoadFailed(
            f"{name} needs torchao, which is not installed. "
            "Run .venv/bin/pip install -r requirements-quantize.txt."
        )
    if name == Quantization.INT4 and device.type != "cuda":
        raise LoadFailed("int4 needs a CUDA device; on a CPU use int8.")
    return Quantization(name)


class Quantizer:
    """Quantizes the linear layers of a model, one at a time."""

    def __init__(self, kind: Quantization) -> None:
        from torchao import quantization as torchao  # slow to import, and optional

        self._quantize: Any = torchao.quantize_
        self._config: Any = (
            torchao.Int8WeightOnlyConfig()
            if kind is Quantization.INT8
            else torchao.Int4WeightOnlyConfig(int4_packing_format=INT4_PACKING)
        )

    def whole(self, model: nn.Module) -> None:
        """Every linear layer of a model that is already loaded. Raises LoadFailed."""
        for path, module in list(model.named_modules()):
            self.layer(path, module)

    def layer(self, path: str, module: nn.Module) -> None:
        """One layer, if it is linear and all of it is there. Raises LoadFailed."""
        if not isinstance(module, nn.Linear) or path == OUTPUT_LAYER:
            return
        if any(parameter.is_meta for parameter in module.parameters()):
            return
        try:
            self._quantize(module, self._config)
        except (
            RuntimeError,
            ValueError,
            ImportError,
            AssertionError,
            NotImplementedError,
        ) as error:
            raise LoadFailed(f"{path} cannot be quantized here: {first_line(error)}.") from error


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

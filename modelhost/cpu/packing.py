"""Linear layers with their weights packed once, for CPUs.

Layers that read the same input, like an attention's query, key and value, are packed below one
another and multiplied at once, which changes no bit; see docs/decisions/0013. How a weight is
packed is in `modelhost.cpu.halves` and `modelhost.cpu.floats`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import nn

from modelhost.cpu import halves, heap, waiting
from modelhost.cpu.floats import Floats
from modelhost.cpu.halves import Halves

logger = logging.getLogger(__name__)


class Product(Protocol):
    """Rows times weights, in float32."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, inputs) → (n, outputs)."""

    def room(self, count: int) -> int:
        """How many rows are multiplied when so many are given; the others are zeros."""


AT_A_TIME = 2  # FBGEMM packs with one thread, 10 ns a weight: a minute for ChatGLM3-6B

# Layers that a module calls one after the other with one input, as transformers names them.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class Packed:
    """The weights of linear layers that read the same input.

    multiply: the product with all of them, their outputs one after the other.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        weight = _stacked([one.weight for one in linears])
        biases = [one.bias for one in linears if one.bias is not None]
        self._outputs, self._inputs = weight.shape
        exact = all(one.weight.dtype == torch.float16 for one in linears)
        bias = _stacked(biases) if biases else None
        self.multiply: Product = _product(weight, bias, in_halves=exact)
        self.readers = len(linears)
        self._kept: tuple[torch.Tensor, torch.Tensor, int] | None = None

    def read(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # its name in nn.Linear
        """(…, inputs) → (…, outputs of all layers), once for those that ask with one tensor."""
        kept = self._kept
        if kept is None or kept[0] is not input:
            rows = input.reshape(-1, self._inputs)
            result = self.multiply(rows).view(*input.shape[:-1], self._outputs)
            kept = (input, result, self.readers)
        result, left = kept[1], kept[2] - 1
        self._kept = (input, result, left) if left else None  # the last one leaves nothing behind
        return result


class PackedLinear(nn.Linear):
    """A linear layer whose weight is packed; only the shape of the plain one is left.

    first: which of the packed columns is this layer's first.
    """

    def __init__(self, linear: nn.Linear, packed: Packed, *, first: int = 0) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.packed = packed
        self.columns = slice(first, first + linear.out_features)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # its name in nn.Linear
        """(…, in_features) → (…, out_features), float32."""
        return self.packed.read(input)[..., self.columns]


def product_of(linears: Sequence[nn.Module]) -> Product | None:
    """One product for all of these layers, outputs in their order, if they were packed so."""
    packed = [one for one in linears if isinstance(one, PackedLinear)]
    columns = [one.columns.start for one in packed]
    packs = {id(one.packed): one.packed for one in packed}
    if len(packed) < len(linears) or len(packs) != 1 or columns != sorted(columns):
        return None
    [together] = packs.values()
    return together.multiply if together.readers == len(linears) else None


def pack(model: nn.Module) -> int:
    """Pack every linear layer of a float32 model on the CPU, few at a time; how many there were.

    Those that waited in 16 bits are packed as float32's. A PyTorch without the operators leaves
    the model unpacked.
    """
    embeddings = waiting.embeddings(model)

    def pack_some(paths: list[str]) -> int:
        linears: list[Any] = [model.get_submodule(path) for path in paths]
        for path, linear, layer in zip(paths, linears, joined(linears), strict=True):
            if id(linear.weight) in embeddings:  # it serves there as well, and stays
                layer.weight = linear.weight
            model.set_submodule(path, layer)
        del linears, linear
        heap.give_back()
        return len(paths)

    def size(paths: list[str]) -> int:
        linears: list[Any] = [model.get_submodule(path) for path in paths]
        return sum(one.weight.numel() for one in linears)

    # Names and no modules: what holds the plain layers would keep all of them until the end. The
    # largest first, or it would be packed at the end, alone: for a vocabulary that takes seconds.
    groups = sorted(_together(model), key=size, reverse=True)
    try:
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            return sum(threads.map(pack_some, groups))
    except (AttributeError, RuntimeError) as error:
        logger.warning("weights stay unpacked, which is slower: %s", error)
        model.float()
        return 0


def joined(linears: Sequence[nn.Linear]) -> list[PackedLinear]:
    """Packed layers for plain ones that read the same input."""
    packed, first, layers = Packed(linears), 0, []
    for linear in linears:
        layers.append(PackedLinear(linear, packed, first=first))
        first += linear.out_features
    return layers


def _together(model: nn.Module) -> Iterator[list[str]]:
    """The paths of the layers to pack, those with the same input in one list."""
    if getattr(model, "dtype", torch.float32) != torch.float32:
        return
    biased = {path: part.bias is not None for path, part in model.named_modules() if _fits(part)}
    for parent in list(dict.fromkeys(path.rpartition(".")[0] for path in biased)):
        alone = [path for path in biased if path.rpartition(".")[0] == parent]
        for names in SIBLINGS:
            found = [f"{parent}.{name}" for name in names]
            if set(alone) >= set(found) and len({biased[path] for path in found}) == 1:
                yield found
                alone = [path for path in alone if path not in found]
        yield from ([path] for path in alone)


def _product(weight: torch.Tensor, bias: torch.Tensor | None, *, in_halves: bool) -> Product:
    """In as few bytes as hold the weight. Raises what a PyTorch without the operators raises.

    in_halves: the weight was float16, which need not be found out.
    """
    exponent: int | None = None
    if halves.available():
        exponent = 0 if in_halves else halves.exponent_of(weight)
    return Floats(weight, bias) if exponent is None else Halves(weight, bias, exponent)


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One below the other in float32; one alone is not copied."""
    whole = [one.detach().float() for one in tensors]
    return whole[0] if len(whole) == 1 else torch.cat(whole)


def _fits(part: nn.Module) -> bool:
    return (
        type(part) is nn.Linear
        and part.weight.device.type == "cpu"
        and part.weight.dtype in (torch.float32, *waiting.SMALL)
    )

"""Linear layers with their weights packed once, for CPUs.

PyTorch's own `linear` packs a weight anew at every call, and does it with a library that is
slow on some processors. oneDNN multiplies with a blocked copy that is made once. Its result
for a row does not depend on the rows beside it, so a prompt's logits are the same alone and
in any batch; see docs/decisions/0009. Layers that read the same input, like an attention's
query, key and value, are packed below one another and multiplied at once, which changes no
bit; see docs/decisions/0013.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

# The operators behind PyTorch's own frozen CPU graphs; they have no public names.
OPERATORS: Any = torch.ops.mkldnn
Product = Callable[[torch.Tensor], torch.Tensor]  # (n, inputs) → (n, outputs)
TYPICAL_ROWS = 64  # oneDNN chooses the blocks' shape for about so many

# oneDNN makes a kernel for each number of rows and shape, about half a megabyte, and keeps a
# thousand of them: of all numbers of rows only some are multiplied. See docs/decisions/0016.
EXACT_ROWS = 16
STEPS = ((64, 4), (10**9, 16))  # up to so many rows: multiples of what

# Layers that a module calls one after the other with one input, as transformers names them.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


# By shape, with which oneDNN chooses its kernels: asked once, for it costs a start half a second.
_ALONE_IS_OTHER: dict[tuple[int, int, bool], bool] = {}


class Packed:
    """The weights of linear layers that read the same input, in oneDNN's layout."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        weight = _stacked([one.weight for one in linears])
        biases = [one.bias for one in linears if one.bias is not None]
        self._bias = _stacked(biases) if biases else None
        self._outputs, self._inputs = weight.shape
        self._weight = OPERATORS._reorder_linear_weight(weight, TYPICAL_ROWS)
        self.readers = len(linears)
        self._kept: tuple[torch.Tensor, torch.Tensor, int] | None = None
        shape = (self._outputs, self._inputs, self._bias is not None)
        if shape not in _ALONE_IS_OTHER:
            _ALONE_IS_OTHER[shape] = not self._keeps_bits_alone()
        self._alone_is_other = _ALONE_IS_OTHER[shape]

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

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, inputs) → (n, outputs of all layers), float32."""
        count = rows.shape[0]
        if count > EXACT_ROWS:
            return self._product(in_steps(rows))[:count]
        if count == 1 and self._alone_is_other:
            return self._product(rows.expand(2, -1).contiguous())[:1]
        return self._product(rows)

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = OPERATORS._linear_pointwise(
            rows, self._weight, self._bias, "none", [], ""
        )
        return result

    def _keeps_bits_alone(self) -> bool:
        """Whether a row comes out alone as it does among others; some shapes have two kernels.

        One row tells: in which order its products are summed does not depend on the numbers.
        """
        rows = torch.arange(2.0 * self._inputs).sin().view(2, -1)
        return torch.equal(self._product(rows[:1]), self._product(rows)[:1])


class PackedLinear(nn.Linear):
    """A linear layer whose weight is packed; of the plain one the shape is left.

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


def in_steps(rows: torch.Tensor) -> torch.Tensor:
    """(n, k) → (n or a few more, k), the rest zeros, so that not every number of rows comes up."""
    count = rows.shape[0]
    if count <= EXACT_ROWS:
        return rows
    missing = -count % next(step for limit, step in STEPS if count <= limit)
    return nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows


def pack(model: nn.Module) -> int:
    """Pack every float32 linear layer on the CPU, few at a time; how many there were.

    A PyTorch without the operators leaves the model as it is.
    """
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    count = 0
    # Names and no modules: what holds the plain layers would keep all of them until the end.
    for paths in list(_together(model)):
        linears: list[Any] = [model.get_submodule(path) for path in paths]
        try:
            layers = joined(linears)
        except (AttributeError, RuntimeError) as error:
            logger.warning("weights stay unpacked, which is slower: %s", error)
            return 0
        for path, linear, layer in zip(paths, linears, layers, strict=True):
            if id(linear.weight) in embeddings:  # it serves there as well, and stays
                layer.weight = linear.weight
            model.set_submodule(path, layer)
        count += len(paths)
        del linears, linear
    return count


def joined(linears: Sequence[nn.Linear]) -> list[PackedLinear]:
    """Packed layers for plain ones that read the same input."""
    packed, first, layers = Packed(linears), 0, []
    for linear in linears:
        layers.append(PackedLinear(linear, packed, first=first))
        first += linear.out_features
    return layers


def _together(model: nn.Module) -> Iterator[list[str]]:
    """The paths of the layers to pack, those with the same input in one list.

    In the model's order: what one leaves free is then where the next, as large, finds room.
    """
    biased = {path: part.bias is not None for path, part in model.named_modules() if _fits(part)}
    for parent in list(dict.fromkeys(path.rpartition(".")[0] for path in biased)):
        alone = [path for path in biased if path.rpartition(".")[0] == parent]
        for names in SIBLINGS:
            found = [f"{parent}.{name}" for name in names]
            if set(alone) >= set(found) and len({biased[path] for path in found}) == 1:
                yield found
                alone = [path for path in alone if path not in found]
        yield from ([path] for path in alone)


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One below the other; one alone is not copied."""
    return (
        tensors[0].detach() if len(tensors) == 1 else torch.cat([one.detach() for one in tensors])
    )


def _fits(part: nn.Module) -> bool:
    return (
        type(part) is nn.Linear
        and part.weight.device.type == "cpu"
        and part.weight.dtype == torch.float32
    )

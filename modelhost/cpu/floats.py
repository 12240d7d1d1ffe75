"""Products of rows with a float32 weight that was packed once, for CPUs.

PyTorch's own `linear` packs a weight anew at every call, and does it with a library that is
slow on some processors. oneDNN multiplies with a blocked copy that is made once. Its result
for a row does not depend on the rows beside it, so a prompt's logits are the same alone and
in any batch; see docs/decisions/0009.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# The operators behind PyTorch's own frozen CPU graphs; they have no public names.
OPERATORS: Any = torch.ops.mkldnn
TYPICAL_ROWS = 64  # oneDNN chooses the blocks' shape for about so many

# oneDNN makes a kernel for each number of rows and shape, about half a megabyte, and keeps a
# thousand of them: of all numbers of rows only some are multiplied. See docs/decisions/0016.
EXACT_ROWS = 16
STEPS = ((64, 4), (10**9, 16))  # up to so many rows: multiples of what

# By shape, which decides oneDNN's kernels: asked once for each, which takes half a second in all.
_ALONE_IS_OTHER: dict[tuple[int, int, bool], bool] = {}


class Floats:
    """The product with a weight in oneDNN's layout."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = OPERATORS._reorder_linear_weight(weight, TYPICAL_ROWS)
        self._bias = bias
        self._inputs = weight.shape[1]
        shape = (*weight.shape, bias is not None)
        if shape not in _ALONE_IS_OTHER:
            _ALONE_IS_OTHER[shape] = not self._keeps_bits_alone()
        self._alone_is_other = _ALONE_IS_OTHER[shape]

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, inputs) → (n, outputs)."""
        count = rows.shape[0]
        if count > EXACT_ROWS:
            return self._product(in_steps(rows))[:count]
        if count == 1 and self._alone_is_other:
            return self._product(rows.expand(2, -1).contiguous())[:1]
        return self._product(rows)

    def room(self, count: int) -> int:
        """How many rows are multiplied when so many are given."""
        return count + missing(count)

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


def in_steps(rows: torch.Tensor) -> torch.Tensor:
    """(n, k) → (n or a few more, k), the rest zeros, so that not every number of rows comes up."""
    more = missing(rows.shape[0])
    return nn.functional.pad(rows, (0, 0, 0, more)) if more else rows


def missing(count: int) -> int:
    """Rows up to the next number that is multiplied."""
    if count <= EXACT_ROWS:
        return 0
    return -count % next(step for limit, step in STEPS if count <= limit)

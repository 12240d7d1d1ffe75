"""Products of rows with a weight in float16 that was packed once, for CPUs.

Published weights are float16 or bfloat16. A float16 copy of them is as good as a float32 one and
half the bytes to read for every token. FBGEMM multiplies float32 rows with it and sums in float32.
Its result for a row does not depend on the rows beside it, if their number is chosen; see
docs/decisions/0021.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from modelhost.cpu.parts import Parts

logger = logging.getLogger(__name__)

# The operators behind PyTorch's dynamically quantized linear layer for float16.
OPERATORS: Any = torch.ops.quantized
MOST_ROWS = 240  # at once; FBGEMM itself takes 120
LARGEST = 15  # as an exponent: of the largest numbers in float16
ROWS_COMPARED = 256  # at a time: copies of a whole weight would be the peak while loading
UNNOTICED = 2.0**-24  # of the largest weight: what float32 rounds off when it adds that one


class Halves:
    """The product with a weight in float16, times two to the power of `exponent`."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, exponent: int) -> None:
        moved = weight * 2.0**exponent if exponent else weight
        self._multiply = _packed(moved)
        self._factor = 2.0**-exponent
        self._bias = bias
        self._fitting = fitting_rows()

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, inputs) → (n, outputs)."""
        count = rows.shape[0]
        if count > MOST_ROWS:
            return torch.cat([self(some) for some in torch.split(rows, MOST_ROWS)])
        fitting = self._fitting[count]
        if count == 1:
            rows = rows.expand(fitting, -1)
        elif count < fitting:
            rows = nn.functional.pad(rows, (0, 0, 0, fitting - count))
        result = self._multiply(rows)[:count]
        if self._factor != 1.0:
            result = result.mul_(self._factor)
        return result if self._bias is None else result.add_(self._bias)

    def room(self, count: int) -> int:
        """How many rows are multiplied when so many are given."""
        return self._fitting[count] if count <= MOST_ROWS else count


def available() -> bool:
    """Whether this processor and this PyTorch multiply so, with sums in float32."""
    return bool(fitting_rows())


def _packed(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The product with it: in parts where there are any, else as PyTorch's operator divides it."""
    if kind := _parts():
        return kind(weight)
    packed = OPERATORS.linear_prepack_fp16(weight, None)
    return lambda rows: OPERATORS.linear_dynamic_fp16(rows, packed)


@cache
def _parts() -> type[Parts] | None:
    try:
        from modelhost.cpu import parts  # compiles a kernel, where numba can
    except ImportError as error:
        logger.info("products are divided beforehand: %s", error)
        return None
    return parts.Parts if parts.available() else None


def exponent_of(weight: torch.Tensor) -> int | None:
    """The power of two by which float16 holds a weight as float32 does, or None.

    float16 has three bits more than bfloat16 and fewer exponents: below 2**-14 it rounds. So
    bfloat16's weights are moved up as far as the largest allows. What is then still rounded is
    less than float32 rounds when it adds products of that size.
    """
    if _keeps(weight, 0, at_most=0.0):
        return 0
    largest = float(torch.linalg.vector_norm(weight, math.inf))
    exponent = LARGEST - math.frexp(largest)[1] if math.isfinite(largest) else 0
    return exponent if _keeps(weight, exponent, at_most=UNNOTICED * largest) else None


def _keeps(weight: torch.Tensor, exponent: int, *, at_most: float) -> bool:
    """Whether no number is farther from its float16 than that."""
    return all(
        _loss(some, exponent) <= at_most  # false for what is no number
        for some in torch.split(weight, ROWS_COMPARED)
    )


def _loss(weight: torch.Tensor, exponent: int) -> float:
    moved = weight * 2.0**exponent if exponent else weight
    return float((moved.half().float() - moved).abs().max()) * 2.0**-exponent


@cache
def fitting_rows() -> list[int]:
    """By number of rows up to MOST_ROWS: how many to multiply. Empty where there is no FBGEMM.

    FBGEMM takes some rows at a time, and for one or two it sums in another order: so a row that is
    left over would get other bits. Which numbers leave none depends on the processor. It is found
    with equal rows: in which order they are summed does not depend on the numbers.
    """
    row = torch.arange(64.0).sin().half().float()
    weight = torch.arange(64.0 * 64).cos().view(64, 64).half().float()
    try:
        packed = OPERATORS.linear_prepack_fp16(weight, None)
        multiply = OPERATORS.linear_dynamic_fp16
        usual = multiply(row.expand(MOST_ROWS, -1), packed)[0]
        fitting = [
            count
            for count in range(1, MOST_ROWS + 1)
            if torch.equal(multiply(row.expand(count, -1), packed), usual.expand(count, -1))
        ]
    except (AttributeError, RuntimeError) as error:
        logger.info("weights stay in 32 bits: %s", error)
        return []
    exact = (weight.double() @ row.double()).float()
    if MOST_ROWS not in fitting or not torch.allclose(usual, exact, rtol=1e-5, atol=1e-5):
        logger.info("weights stay in 32 bits: this processor sums 16 bits in another way")
        return []
    return [next(one for one in fitting if one >= count) for count in range(MOST_ROWS + 1)]

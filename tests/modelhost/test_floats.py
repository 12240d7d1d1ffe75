"""Packed weights in 32 bits: a row is the same whoever is beside."""

from __future__ import annotations

import pytest
import torch

from modelhost.cpu import floats
from modelhost.cpu.floats import Floats

SHAPES = [(48, 64), (192, 576), (1536, 576), (576, 1536), (4096, 576)]


def product(outputs: int, inputs: int) -> Floats:
    torch.manual_seed(0)
    return Floats(torch.randn(outputs, inputs) / inputs**0.5, None)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_a_row_is_the_same_alone_and_in_any_batch(shape):
    packed = product(*shape)
    rows = torch.randn(260, shape[1])
    together = packed(rows)

    for count in (1, 2, 3, 5, 8, 16, 17, 31, 64, 65, 128, 255):
        assert torch.equal(packed(rows[:count]), together[:count]), count


@torch.inference_mode()
def test_of_all_numbers_of_rows_few_are_multiplied(monkeypatch):
    """Each one costs memory for good."""
    packed = product(48, 64)
    multiplied = set()

    class Watched:
        @staticmethod
        def _linear_pointwise(rows: torch.Tensor, *rest: object) -> torch.Tensor:
            multiplied.add(rows.shape[0])
            return torch.ops.mkldnn._linear_pointwise(rows, *rest)

    monkeypatch.setattr(floats, "OPERATORS", Watched)
    for count in range(1, 257):
        assert packed(torch.ones(count, 64)).shape == (count, 48)

    assert len(multiplied) <= 16 + 12 + 12
    assert max(multiplied) == 256, "and none is multiplied beside many zeros"

"""Weights in 16 bits: nothing is lost, and a row is the same whoever is beside."""

from __future__ import annotations

import pytest
import torch

from modelhost.cpu import halves
from modelhost.cpu.halves import MOST_ROWS, Halves, exponent_of, fitting_rows

SHAPES = [(48, 64), (1536, 576), (576, 1536), (200, 2048), (64, 4100)]

pytestmark = pytest.mark.skipif(
    not halves.available(), reason="this processor or PyTorch has no FBGEMM"
)


def published(*shape: int, dtype: torch.dtype, size: float = 0.02) -> torch.Tensor:
    """Weights as they come out of a file, in float32."""
    torch.manual_seed(0)
    return (torch.randn(shape) * size).to(dtype).float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_the_product_is_as_exact_as_sums_in_float32(shape, dtype, bias):
    """Higham and Mary, 2019: their error grows like the square root of their length."""
    weight = published(*shape, dtype=dtype)
    added = torch.randn(shape[0]) if bias else None
    rows = torch.randn(7, shape[1])
    exact = rows.double() @ weight.double().T + (added.double() if bias else 0)
    bound = 4 * shape[1] ** 0.5 * 2.0**-24 * (rows.abs() @ weight.abs().T + 1)

    result = Halves(weight, added, exponent_of(weight))(rows)

    assert ((result - exact).abs() <= bound).all()


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_a_row_is_the_same_alone_and_in_any_batch(shape):
    product = Halves(published(*shape, dtype=torch.float16), None, 0)
    rows = torch.randn(MOST_ROWS + 40, shape[1])
    together = product(rows)

    for count in [*range(1, 70), 119, 120, 121, 127, 239, 240, 241, 242, 247]:
        assert torch.equal(product(rows[:count]), together[:count]), count
        assert torch.equal(product(rows[-count:]), together[-count:]), count


@torch.inference_mode()
def test_no_row_is_a_result_of_no_rows():
    assert Halves(published(48, 64, dtype=torch.float16), None, 0)(torch.ones(0, 64)).shape == (
        0,
        48,
    )


def test_a_row_needs_no_more_than_a_few_beside_it():
    for count, fitting in enumerate(fitting_rows()[1:], start=1):
        assert count <= fitting <= count + 15


def test_float16_is_kept_as_it_is_down_to_its_smallest_number():
    smallest = torch.tensor([[2.0**-24, -(2.0**-14), 65504.0, 0.0]])

    assert exponent_of(smallest) == 0


@pytest.mark.parametrize("size", [1e-6, 0.02, 1.0, 1e6])
def test_bfloat16_is_moved_to_where_float16_holds_it(size):
    weight = published(300, 200, dtype=torch.bfloat16, size=size)
    exponent = exponent_of(weight)
    assert exponent is not None

    moved = weight * 2.0**exponent

    assert moved.abs().max() < 65504
    lost = (moved.half().float() - moved).abs().max()
    assert lost <= 2.0**-24 * moved.abs().max()


@pytest.mark.parametrize("value", [1 + 2.0**-12, float("inf"), float("nan")])
def test_what_float16_cannot_hold_stays_in_float32(value):
    weight = published(3000, 8, dtype=torch.float16)
    weight[2999, 7] = value

    assert exponent_of(weight) is None


def test_zeros_are_held():
    assert exponent_of(torch.zeros(4, 4)) == 0


@pytest.fixture
def asked_anew():
    """What was found out about this processor is forgotten, before and after."""
    fitting_rows.cache_clear()
    yield
    fitting_rows.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_without_the_operators_there_are_none_and_nothing_fails(monkeypatch):
    monkeypatch.setattr(halves, "OPERATORS", object())

    assert not halves.available()


@pytest.mark.usefixtures("asked_anew")
def test_a_processor_that_sums_in_16_bits_is_not_used(monkeypatch):
    class Coarse:
        linear_prepack_fp16 = staticmethod(torch.ops.quantized.linear_prepack_fp16)

        @staticmethod
        def linear_dynamic_fp16(rows: torch.Tensor, packed: object) -> torch.Tensor:
            return torch.ops.quantized.linear_dynamic_fp16(rows, packed).half().float()

    monkeypatch.setattr(halves, "OPERATORS", Coarse)

    assert not halves.available()

"""Linear layers in eight bits: near the plain ones, and the same in any batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modelhost.cpu.eight_bits import EightBitLinear, rounded, supported

pytestmark = pytest.mark.skipif(
    not supported(), reason="this processor has no exact eight-bit products (VNNI, AMX)"
)


@pytest.fixture(params=[(64, 96, True), (1536, 576, False), (50, 7, True)], ids=str)
def linear(request: pytest.FixtureRequest) -> nn.Linear:
    inputs, outputs, bias = request.param
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs, bias=bias)


def test_the_result_is_the_product_with_the_rounded_weight(linear):
    x = torch.randn(5, linear.in_features)

    weight, widths = rounded(linear.weight.detach())
    expected = nn.functional.linear(x, weight * widths, linear.bias).detach()

    torch.testing.assert_close(EightBitLinear(linear)(x), expected, rtol=1e-3, atol=1e-3)


def test_a_few_large_numbers_do_not_cost_the_others_their_digits():
    torch.manual_seed(3)
    linear = nn.Linear(576, 64, bias=False)
    x = torch.randn(8, 576)
    x[:, 5] = 300.0
    weight, widths = rounded(linear.weight.detach())
    expected = nn.functional.linear(x, weight * widths)

    error = (EightBitLinear(linear)(x) - expected).norm() / expected.norm()

    assert error < 1e-3


def test_it_is_near_the_plain_layer(linear):
    x = torch.randn(2, 9, linear.in_features)
    plain = linear(x).detach()

    error = (EightBitLinear(linear)(x) - plain).norm() / plain.norm()

    assert error < 0.02


def test_a_row_is_the_same_alone_and_in_any_batch(linear):
    small, x = EightBitLinear(linear), torch.randn(130, linear.in_features)
    x[7] *= 1000

    together = small(x)

    for size in (1, 2, 3, 8, 31, 64, 129):
        assert torch.equal(small(x[:size]), together[:size])
    assert torch.equal(small(x[40:41]), together[40:41])


def test_the_largest_sums_do_not_overflow_on_the_way():
    linear = nn.Linear(1536, 8, bias=False)
    nn.init.constant_(linear.weight, 1.0)

    result = EightBitLinear(linear)(torch.ones(3, 1536))

    torch.testing.assert_close(result, torch.full((3, 8), 1536.0))


def test_rows_of_zeros_stay_zeros_and_dtypes_stay():
    linear = nn.Linear(16, 4, bias=False)

    result = EightBitLinear(linear)(torch.zeros(2, 16, dtype=torch.bfloat16))

    assert result.dtype is torch.bfloat16
    assert torch.equal(result, torch.zeros(2, 4, dtype=torch.bfloat16))


def test_what_is_no_number_shows():
    linear = nn.Linear(16, 4, bias=False)
    x = torch.randn(2, 16)
    x[1, 3] = float("nan")

    result = EightBitLinear(linear)(x)

    assert torch.isfinite(result[0]).all()
    assert torch.isnan(result[1]).all()

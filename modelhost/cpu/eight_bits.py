"""Linear layers with weights in eight bits for CPUs.

Each row of a weight is rounded to int8 with a scale of its own (symmetric, largest value to 127).
An input's row is written as the sum of two such rows, a coarse one and what it left over: eight
bits alone are too few for inputs, in which a few numbers are a hundred times the others. The
products are summed as whole numbers, so a row's result is the same alone and in any batch. The
weights take a quarter of the memory; what it does to the speed is in docs/decisions/0012.

Method: Dettmers et al., "LLM.int8()", 2022, section 2 (vector-wise quantization); the second row
stands where they keep the large columns as floats.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from modelhost.cpu.floats import in_steps

LARGEST = 127
SMALLEST_SCALE = 1e-12  # of a row of zeros
# Inputs travel as uint8 around this zero: for signed ones, oneDNN has a kernel only where there is
# AMX, and elsewhere a reference implementation that is a thousand times as slow.
ZERO = 128

OPERATORS: Any = torch.ops.onednn


class EightBitLinear(nn.Module):
    """(…, in_features) → (…, out_features) in the input's dtype."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scales = rounded(linear.weight.detach().float())
        self.packed = OPERATORS.qlinear_prepack(weight, None)
        self.scales = scales.flatten()
        self.zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self.bias = None if linear.bias is None else linear.bias.detach().float()

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # its name in nn.Linear
        """The product, summed in 32-bit whole numbers."""
        wanted = input.reshape(-1, self.in_features).float()
        rows = in_steps(wanted)
        coarse, scales = rounded(rows)
        fine, fine_scales = rounded(rows.addcmul(coarse, scales, value=-1))
        unsigned = torch.cat([coarse, fine]).view(torch.uint8).bitwise_xor_(ZERO)  # adds it
        result = OPERATORS.qlinear_pointwise(
            *(unsigned, 1.0, ZERO, self.packed, self.scales, self.zeros),
            *(None, 1.0, 0, torch.float32, "none", [], ""),  # a bias here would be scaled below
        )
        count = rows.shape[0]
        result = result[:count].mul_(scales).addcmul_(result[count:], fine_scales)
        result = result[: wanted.shape[0]]
        if self.bias is not None:
            result += self.bias
        return result.view(*input.shape[:-1], self.out_features).to(input.dtype)


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row as int8 and its scale: (n, k) → (n, k) and (n, 1)."""
    scales = rows.abs().amax(-1, keepdim=True).div_(LARGEST).clamp_min_(SMALLEST_SCALE)
    return rows.div(scales).round_().to(torch.int8), scales


def supported() -> bool:
    """Whether this processor multiplies int8 exactly and PyTorch has the operators.

    Without one of these instructions two products are added in 16 bits, which may be too few.
    """
    known = torch.cpu.get_capabilities()
    exact = any(known.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return exact and hasattr(OPERATORS, "qlinear_pointwise")

"""Linear layers with their weights packed once, for CPUs.

PyTorch's own `linear` packs a weight anew at every call, and does it with a library that is
slow on some processors. oneDNN multiplies with a blocked copy that is made once. Its result
for a row does not depend on the rows beside it, so a prompt's logits are the same alone and
in any batch; see docs/decisions/0009.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

# The operators behind PyTorch's own frozen CPU graphs; they have no public names.
OPERATORS: Any = torch.ops.mkldnn
TYPICAL_ROWS = 64  # oneDNN chooses the blocks' shape for about so many


class PackedLinear(nn.Linear):
    """A linear layer whose weight is in oneDNN's layout; of the plain one the shape is left.

    shared: the plain weight serves elsewhere as well (as the embedding) and stays.
    """

    def __init__(self, linear: nn.Linear, *, shared: bool) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        if shared:
            self.weight = linear.weight
        self.bias = linear.bias
        self.packed = OPERATORS._reorder_linear_weight(linear.weight.detach(), TYPICAL_ROWS)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # its name in nn.Linear
        """(…, in_features) → (…, out_features), float32."""
        rows = input.reshape(-1, self.in_features)
        alone = rows.shape[0] == 1
        if alone:  # one row alone has a kernel of its own, which rounds differently
            rows = rows.expand(2, -1).contiguous()
        result = OPERATORS._linear_pointwise(rows, self.packed, self.bias, "none", [], "")
        result = result[:1] if alone else result
        return result.view(*input.shape[:-1], self.out_features)


def pack(model: nn.Module) -> int:
    """Pack every float32 linear layer on the CPU, one at a time; how many there were.

    A PyTorch without the operators leaves the model as it is.
    """
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    # Names and no modules: what holds the plain layers would keep all of them until the end.
    plain = [path for path, part in model.named_modules() if _fits(part)]
    for path in plain:
        linear: Any = model.get_submodule(path)
        try:
            layer = PackedLinear(linear, shared=id(linear.weight) in embeddings)
        except (AttributeError, RuntimeError) as error:
            logger.warning("weights stay unpacked, which is slower: %s", error)
            return 0
        model.set_submodule(path, layer)
        del linear
    return len(plain)


def _fits(part: nn.Module) -> bool:
    return (
        type(part) is nn.Linear
        and part.weight.device.type == "cpu"
        and part.weight.dtype == torch.float32
    )

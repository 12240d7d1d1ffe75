"""Weights that wait in the 16 bits of their file until they are packed for a CPU.

All else of a float32 model is made float32 at once. So a model needs no memory for a float32 copy
of all that it has, and nothing is rounded; see docs/decisions/0021.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

SMALL = (torch.float16, torch.bfloat16)


def may_wait(module: nn.Module, leaf: str, dtype: torch.dtype) -> bool:
    """Whether a tensor of a float32 model may stay in its file's 16 bits until `pack` comes."""
    return type(module) is nn.Linear and leaf == "weight" and dtype in SMALL


def widen(model: nn.Module) -> bool:
    """Make float32 of all that was loaded in 16 bits and may not wait for `pack`.

    False if a model holds constants that it computed in 16 bits: wider, they would not be right.
    """
    if any(one.dtype in SMALL for one in model.buffers()):
        return False
    wide: dict[int, nn.Parameter] = {}  # by what it replaces: who shares one goes on sharing
    shared = embeddings(model)
    for module in model.modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in shared or not may_wait(module, leaf, parameter.dtype):
                wider = nn.Parameter(parameter.float(), requires_grad=False)
                setattr(module, leaf, wide.setdefault(id(parameter), wider))
    return True


def memory_bytes(outline: nn.Module, stored: Mapping[str, torch.dtype]) -> int:
    """What a float32 model's weights take, waiting and packed. stored: the files' dtypes by name.

    A weight that is the embedding as well is counted once.
    """
    shared = embeddings(outline)
    waiting = (
        part.weight.numel()
        for path, part in outline.named_modules()
        if isinstance(part, nn.Linear)
        and id(part.weight) not in shared
        and may_wait(part, "weight", stored.get(f"{path}.weight", torch.float32))
    )
    return 4 * sum(part.numel() for part in outline.parameters()) - 2 * sum(waiting)


def embeddings(model: nn.Module) -> set[int]:
    """The weights that are looked up in, some of which are an output layer's as well."""
    return {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}

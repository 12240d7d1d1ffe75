"""Safetensors files of a folder: those that its index names, and what their headers say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from modelhost.checkpoints.files import first_of
from modelhost.errors import LoadFailed, first_line

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}  # as safetensors calls them
LONGEST_NAME = 255  # bytes in a file's name; the system's calls fail with more


def indexed_files(index: Path) -> list[str]:
    """Names of the weight files that an index names, all of them beside it. Raises LoadFailed."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if not names or not all(map(_is_beside, names)):
            raise ValueError("its weight_map must name files beside it")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        reason = first_line(error)
        raise LoadFailed(f"{index} is not usable: {reason}. Download it again.") from error
    return names


def _is_beside(name: str) -> bool:
    """Whether a text is the plain name of a file in the same folder."""
    if not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        return False
    return Path(name).name == name and name not in ("", "..")


def missing_weights(folder: Path) -> list[str]:
    """Names of weight files that should be in the folder and are not."""
    return [name for name in weight_names(folder) if not (folder / name).is_file()]


def weight_names(folder: Path) -> list[str]:
    """Names of the files that the weights should be in. Raises LoadFailed."""
    index = folder / INDEX
    if not index.is_file():
        return [SINGLE]
    return indexed_files(index)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files, all there and readable. Raises LoadFailed, naming the file."""
    if missing := missing_weights(folder):
        raise LoadFailed(
            f"{folder} lacks {first_of(missing)}. Weights are read from safetensors only; "
            "download the folder again."
        )
    files = [folder / name for name in weight_names(folder)]
    for file in files:
        count_parameters(file)
    return files


def count_parameters(file: Path) -> int:
    """Parameters in one safetensors file, from its header. Raises LoadFailed."""
    try:
        with safe_open(file, framework="pt") as tensors:
            names = tensors.keys()
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError) as error:
        raise LoadFailed(
            f"{file} is damaged or cut short ({first_line(error)}). Download it again."
        ) from error


def stored_small(folder: Path) -> torch.dtype | None:
    """The 16-bit dtype that all weights of a folder are stored in, if there is one."""
    found: set[torch.dtype | None] = set()
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            names = tensors.keys()
            found |= {HALVES.get(tensors.get_slice(name).get_dtype()) for name in names}
    return found.pop() if len(found) == 1 else None

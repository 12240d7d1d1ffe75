"""A LoRA adapter in peft's layout, added to the weights while they are loaded.

W' = W + scale · B·A, with scale = alpha / r (Hu et al., "LoRA", 2021), or alpha / √r for
rank-stabilised ones. It is added under the published names, before anything is split, so
the adapter needs no conversion of its own and costs nothing afterwards.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelhost.checkpoints.files import fingerprint, name_of
from modelhost.checkpoints.published import tensors_of
from modelhost.errors import LoadFailed, first_line

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
UNSUPPORTED = {
    "use_dora": "is a DoRA adapter",
    "modules_to_save": "replaces whole modules",
    "fan_in_fan_out": "has transposed matrices",
    "layer_replication": "replicates layers",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices for one weight: A is [r, in], B is [out, r]."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


class Adapter:
    """A folder that ChatGLM3's finetune_demo, or peft, saved."""

    def __init__(self, folder: Path) -> None:
        """Raises LoadFailed for anything that is not a plain LoRA."""
        self.folder = folder
        self.name = name_of(folder)
        config = _read_config(folder)
        weights = _read_weights(folder)
        self.revision = fingerprint([folder / CONFIG, weights])
        self._pairs = _pairs(folder, config, dict(tensors_of(weights)))

    @property
    def label(self) -> str:
        """Name and revision, as they stand on every response."""
        return f"{self.name}@{self.revision}"

    def check(self, shapes: dict[str, tuple[int, int]]) -> None:
        """Every pair must have a weight that it fits. Raises LoadFailed."""
        for target, pair in self._pairs.items():
            if target not in shapes:
                raise LoadFailed(
                    f"The adapter {self.folder} targets {target}, which this model does not have."
                )
            made = (pair.b.shape[0], pair.a.shape[1])
            if made != shapes[target] or pair.b.shape[1] != pair.a.shape[0]:
                raise LoadFailed(
                    f"The adapter {self.folder} has the shape {list(made)} for {target}; "
                    f"this model has {list(shapes[target])}. It was trained on another model."
                )

    def apply(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The published tensor [out, in] with its change added in float32; an outline stays one."""
        pair = self._pairs.get(name.removesuffix(".weight"))
        if pair is None or not name.endswith(".weight"):
            return tensor
        if tensor.is_meta:
            return tensor.float()
        return tensor.float() + pair.scale * (pair.b.float() @ pair.a.float())


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise LoadFailed(_no_adapter(folder))
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise LoadFailed(f"{file} cannot be read as JSON ({error}).") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise LoadFailed(f"{folder} is a {kind} adapter; only LoRA can be loaded.")
    for field, what in UNSUPPORTED.items():
        if config.get(field):
            raise LoadFailed(f"{folder} {what} ({field}), which cannot be loaded.")
    if config.get("bias", "none") != "none":
        raise LoadFailed(f"{folder} trains biases (bias), which cannot be loaded.")
    return config


def _no_adapter(folder: Path) -> str:
    if not folder.is_dir():
        return f"There is no adapter folder {folder}. Check LLMSITE_ADAPTER."
    config = folder / "config.json"
    if config.is_file() and '"pre_seq_len"' in config.read_text(errors="replace"):
        return (
            f"{folder} is a P-tuning checkpoint, which changes the network and cannot be loaded "
            "natively. Train a LoRA instead; ChatGLM3's finetune_demo can."
        )
    return f"{folder} has no {CONFIG}, so it is not an adapter that peft saved."


def _read_weights(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise LoadFailed(f"{folder} has neither {WEIGHTS[0]} nor {WEIGHTS[1]}.")


def _pairs(
    folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> dict[str, Pair]:
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", name)
        if match is None:
            raise LoadFailed(f"{folder} holds {name}, which is no part of a LoRA.")
        if tensor.ndim != 2 or 0 in tensor.shape:
            raise LoadFailed(
                f"{folder} holds {name} with the shape {list(tensor.shape)}: it is no matrix."
            )
        halves.setdefault(match[1].removeprefix(PREFIX), {})[match[2]] = tensor
    if not halves:
        raise LoadFailed(f"{folder} holds no matrices.")
    for target, half in halves.items():
        if set(half) != {"A", "B"}:
            raise LoadFailed(f"{folder} has only half of the pair for {target}.")
    return {
        target: Pair(half["A"], half["B"], _scale(folder, config, target, rank=len(half["A"])))
        for target, half in halves.items()
    }


def _scale(folder: Path, config: dict[str, Any], target: str, *, rank: int) -> float:
    """alpha / r. A pattern names targets by the end of their path; as in peft the first counts.

    Raises LoadFailed.
    """
    try:
        patterns = (config.get("alpha_pattern") or {}).items()
        named = (one for pattern, one in patterns if re.fullmatch(rf"(.*\.)?({pattern})", target))
        alpha = float(next(named, config.get("lora_alpha") or rank))
    except (AttributeError, TypeError, ValueError, OverflowError, re.error) as error:
        raise LoadFailed(
            f"{folder / CONFIG} says no usable lora_alpha or alpha_pattern ({first_line(error)})."
        ) from error
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

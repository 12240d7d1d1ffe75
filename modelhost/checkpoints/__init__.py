"""From the name of a model to a checkpoint on disk: one file per way of loading."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from modelhost.checkpoints import published
from modelhost.checkpoints.adapter import Adapter
from modelhost.checkpoints.base import Checkpoint, Description, Loaded, Placement
from modelhost.checkpoints.chatglm import ChatGLMCheckpoint
from modelhost.checkpoints.config import read_config
from modelhost.checkpoints.files import name_of
from modelhost.checkpoints.gguf import DemoCheckpoint
from modelhost.checkpoints.hub import HubCheckpoint
from modelhost.checkpoints.shards import missing_weights
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.types import ModelSpec

__all__ = ["Checkpoint", "Description", "Loaded", "Placement", "locate"]

logger = logging.getLogger(__name__)

# Weights as safetensors and what describes them. No *.py: code of a checkpoint is never fetched.
PICKLED = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]  # read as data only
WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def locate(spec: ModelSpec, progress: Progress) -> Checkpoint:
    """Find the checkpoint that `spec.model` names; download it when it is a hub id not yet here.

    Raises LoadFailed.
    """
    if spec.model == "demo":
        _refuse_adapter(spec)
        _refuse_revision(spec)
        return DemoCheckpoint(cache_dir=spec.cache_dir)
    if folder := _folder(spec.model):
        _refuse_revision(spec)
        return _of_folder(folder, spec, name=name_of(folder), revision=None)
    if spec.model.startswith((".", "/", "~")):
        raise LoadFailed(f"There is no folder {spec.model}. Name a folder, a hub id, or demo.")
    snapshot = _cached(spec) or _download(spec, progress)
    return _of_folder(snapshot, spec, name=spec.model, revision=snapshot.name[:12])


def _folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, nobody's home
        return None


def _of_folder(folder: Path, spec: ModelSpec, *, name: str, revision: str | None) -> Checkpoint:
    config = read_config(folder / "config.json")
    if config.get("model_type") == "chatglm":
        adapter = Adapter(spec.adapter) if spec.adapter else None
        return ChatGLMCheckpoint(folder, config, name=name, revision=revision, adapter=adapter)
    _refuse_adapter(spec)
    return HubCheckpoint(folder, config, name=name, revision=revision)


def _refuse_adapter(spec: ModelSpec) -> None:
    if spec.adapter is not None:
        raise LoadFailed(
            f"The adapter {spec.adapter} cannot be used: {spec.model} is no ChatGLM checkpoint. "
            "Unset LLMSITE_ADAPTER, or merge the adapter into the model's folder."
        )


def _refuse_revision(spec: ModelSpec) -> None:
    if spec.revision is not None:
        raise LoadFailed(
            f"The revision {spec.revision} cannot be used: {spec.model} is no model of a hub. "
            "Unset LLMSITE_REVISION."
        )


def _cached(spec: ModelSpec) -> Path | None:
    """The complete snapshot in the local hub cache, if there is one.

    The patterns say which files it must have: the library knows all files of the repository, and
    would call a snapshot without the README incomplete.
    """
    look = functools.partial(snapshot_download, local_files_only=True, allow_patterns=WANTED)
    try:
        snapshot = Path(look(spec.model, revision=spec.revision))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    complete = not missing_weights(snapshot) or published.is_complete(snapshot)
    return snapshot if complete else None


def _download(spec: ModelSpec, progress: Progress) -> Path:
    """Fetch a snapshot; HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured by the library."""

    def fetch(patterns: list[str]) -> Path:
        progress.begin(f"Downloading {spec.model}", unit="file")
        bar: Any = progress.tqdm_class()
        snapshot = snapshot_download(
            spec.model, revision=spec.revision, allow_patterns=patterns, tqdm_class=bar
        )
        return Path(snapshot)

    try:
        snapshot = fetch(WANTED)
        if missing_weights(snapshot):  # a release from before safetensors
            fetch(PICKLED)
        return snapshot
    except HFValidationError as error:
        raise LoadFailed(
            f"{spec.model!r} is neither a folder nor a hub id. Set LLMSITE_MODEL to one of them."
        ) from error
    except LoadFailed:
        raise
    except Exception as error:  # no network, no such name, a mirror that answers anything
        logger.info("download of %s failed", spec.model, exc_info=True)
        raise LoadFailed(
            f"{spec.model} is not in the local cache and could not be downloaded "
            f"({type(error).__name__}). Check the name, the network and HF_ENDPOINT, "
            "or set LLMSITE_MODEL to a folder."
        ) from error

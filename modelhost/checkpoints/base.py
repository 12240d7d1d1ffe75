"""What every way of loading offers: describe cheaply, load heavily."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelhost.errors import LoadFailed, first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from modelhost.checkpoints.adapter import Adapter
    from modelhost.checkpoints.quantization import Quantization
    from modelhost.progress import Progress
    from modelhost.prompts import ChatFormat


UNKNOWN_CONTEXT = 2048  # tokens, for a model without position embeddings
LONGEST_NAME = 255  # bytes in a file's name; the system's calls fail with more
# Numbers of which something is made one by one, milliseconds for a layer; published models have
# 126 layers at most.
MOST = dict.fromkeys(["num_layers", "num_hidden_layers", "n_layer", "n_layers"], 1000)
MOST["num_labels"] = 1_000_000


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint is, read from its small files only.

    memory_bytes: the weights in the dtype they would be loaded in; the KV cache comes on top.
    """

    name: str
    revision: str
    kind: str
    architecture: str
    parameters: int
    dtype: str
    device: str
    context_length: int
    memory_bytes: int
    files: list[str] = field(default_factory=list)
    adapter: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where weights go, and as what.

    halves: linear layers may stay in the 16 bits of their file; `packing.pack` will take them.
    """

    device: torch.device
    dtype: torch.dtype
    quantize: Quantization | None = None
    halves: bool = False

    @property
    def is_plain_cpu(self) -> bool:
        """Whether a float32 model is computed on a CPU, with layers that `packing.pack` takes."""
        return (self.device.type, self.dtype_name, self.quantize) == ("cpu", "float32", None)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device and the chat format that it was trained with."""

    model: PreTrainedModel
    format: ChatFormat


class Checkpoint(Protocol):
    """One model on disk. `name`, `revision` and adapter stand on every stored response."""

    name: str
    revision: str
    adapter: Adapter | None

    def describe(self, where: Placement) -> Description:
        """Read config and headers, not weights. Raises LoadFailed."""

    def chat_format(self) -> ChatFormat:
        """The tokenizer and its way to write a conversation, without weights. Raises LoadFailed."""

    def load(self, where: Placement, progress: Progress) -> Loaded:
        """Bring the weights to the device. Raises LoadFailed."""


def context_length(config: Any) -> int:
    """The longest sequence that a model was made for, in tokens; some configs do not say.

    LongRoPE (Ding et al., 2024) turns all positions otherwise as soon as one is behind the original
    length. In a batch one long request would change the others, and its own keys that are in the
    cache already: so it ends at that length.
    """
    plain = config.get_text_config()
    length = int(getattr(plain, "max_position_embeddings", UNKNOWN_CONTEXT))
    return min([length, *_original_lengths(getattr(plain, "rope_parameters", None) or {})])


def _original_lengths(rope: dict[str, Any]) -> Iterator[int]:
    """Of LongRoPE; layers of several types each have their own parameters."""
    for parameters in (rope, *rope.values()):
        if isinstance(parameters, dict) and parameters.get("rope_type") == "longrope":
            yield int(parameters["original_max_position_embeddings"])


def check_context(file: Path, config: Any) -> None:
    """Refuse a config that leaves no room for a token. Raises LoadFailed."""
    try:
        length = context_length(config)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise LoadFailed(
            f"{file} does not say how long a context may be ({first_line(error)}). "
            "Take the file of the release."
        ) from error
    if length < 1:
        raise LoadFailed(
            f"{file} says that a context has {length} tokens. Take the file of the release."
        )


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


def check_numbers(file: Path, config: dict[str, Any]) -> None:
    """Refuse a config of which the library would never be done. Raises LoadFailed.

    Asked before the library reads it: some of its configs make a list as long as they have layers.
    """
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        for name, most in MOST.items():
            if (number := _whole(part.get(name))) > most:
                raise LoadFailed(
                    f"{file} says {name}: {number}, and more than {most} are not tried. "
                    "Take the file of the release."
                )


def _whole(value: Any) -> int:
    """What may become a number; what cannot is refused where it is read."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def first_of(names: Collection[str]) -> str:
    """For a sentence: the first of these names, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{next(iter(names))}{more}"


def fingerprint(files: list[Path]) -> str:
    """A short name for a folder's content: names and sizes of all, bytes of the small ones.

    Raises LoadFailed.
    """
    digest = sha256()
    for file in sorted(files):
        try:
            size = file.stat().st_size
            small = file.read_bytes() if file.suffix == ".json" else b""
        except OSError as error:  # it has just gone, or is not ours to read
            raise LoadFailed(
                f"{file} cannot be read ({error.strerror}). Check the folder and its permissions."
            ) from error
        digest.update(f"{file.name}:{size}\n".encode())
        digest.update(small)
    return digest.hexdigest()[:12]


def present(folder: Path, patterns: Collection[str]) -> list[Path]:
    """Files in a folder that match; no folders, pipes or links that lead nowhere."""
    found = {file for pattern in patterns for file in folder.glob(pattern)}
    return sorted(file for file in found if file.is_file())

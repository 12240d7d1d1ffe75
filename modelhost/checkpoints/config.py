"""What a config.json says: read, and refused where it says what nobody can build."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelhost.errors import LoadFailed, first_line

UNKNOWN_CONTEXT = 2048  # tokens, for a model without position embeddings
# Numbers of which something is made one by one, milliseconds for a layer; published models have
# 126 layers at most.
MOST = dict.fromkeys(["num_layers", "num_hidden_layers", "n_layer", "n_layers"], 1000)
MOST["num_labels"] = 1_000_000


def read_config(file: Path) -> dict[str, Any]:
    """A config that is not too large for what is made of it. Raises LoadFailed."""
    if not file.is_file():  # reading a pipe would never end
        raise LoadFailed(
            f"{file.parent} has no config.json, so it is not a model folder. Check the path."
        )
    try:
        config = json.loads(file.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise LoadFailed(f"{file} cannot be read ({error}). Download it again.") from error
    if not isinstance(config, dict):
        raise LoadFailed(f"{file} is not a JSON object. Download it again.")
    _check_numbers(file, config)
    return config


def _check_numbers(file: Path, config: dict[str, Any]) -> None:
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

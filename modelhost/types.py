"""Values that cross the border of modelhost. A leaf: it imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self


class Role(StrEnum):
    """Who speaks in a turn."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model to serve and how: the whole configuration of this package.

    model: `demo`, a folder, or a hub id.
    adapter: folder of a LoRA that is added to the weights.
    device, dtype: torch's names, or `auto` (CUDA with bf16/fp16 when there is one, else fp32).
    quantize: `int8` or `int4` for the linear layers; empty keeps the dtype.
    cache_tokens: size of the paged KV cache in tokens; None chooses for the device.
    cache_dir: where a converted demo model is kept; None is the user's cache folder.
    max_requests: generations held at once, running or waiting for a place.
    share_prefixes: whether prompts of one owner that begin alike compute that beginning once.
    speculate: whether a CPU that serves few streams drafts what repeats; modelhost.speculation.
    patience: seconds after which an engine that has work and makes no step counts as hung.
    """

    model: str = "demo"
    revision: str | None = None
    adapter: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = ""
    cache_tokens: int | None = None
    cache_dir: Path | None = None
    max_requests: int = 256
    share_prefixes: bool = True
    speculate: bool = True
    patience: float = 120.0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is served, for people and for `/v1/models`.

    context_length: the largest prompt plus answer in tokens, KV cache considered.
    parameters: a count; dtype and device: torch's names.
    adapter: name and revision of the LoRA that is in the weights; empty without one.
    """

    name: str
    revision: str
    architecture: str
    parameters: int
    dtype: str
    device: str
    context_length: int
    vocabulary: int
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called, with JSON values as arguments."""

    name: str
    arguments: Mapping[str, Any]


# A function that the model may call: `name`, `description`, `parameters` (JSON Schema).
Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    metadata and tools are ChatGLM3's own way to write them, tool_calls anybody's: the
    calls that an assistant turn made. The result of a call is a turn of the role tool.
    """

    role: str
    content: str
    metadata: str = ""
    tools: Sequence[Tool] | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The turn as JSON, without what it does not have."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The turn that `as_json` wrote."""
        calls = tuple(ToolCall(**call) for call in data.get("tool_calls", ()))
        return cls(**{"content": "", **data, "tool_calls": calls})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens.

    temperature: 0 is greedy. top_k: 0 is off. top_p: 1 is off.
    seed: any 64-bit integer; with the same prompt it gives the same tokens, alone or in a batch.
    stop: texts that end the answer and are not part of it.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as token ids, and the indices of the turns that did not fit the context."""

    token_ids: list[int]
    omitted: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Piece:
    """What came since the last piece. `text` is empty while text is held back."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, counted where they are made; the stop token counts."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Finish:
    """How a generation ended.

    error: a sentence when the reason is `error`. tool_calls: when it is `tool_calls`.
    """

    reason: FinishReason
    usage: Usage
    error: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

"""What every way of loading offers: describe cheaply, load heavily."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from modelhost.checkpoints.adapter import Adapter
    from modelhost.checkpoints.quantization import Quantization
    from modelhost.progress import Progress
    from modelhost.prompts import ChatFormat


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

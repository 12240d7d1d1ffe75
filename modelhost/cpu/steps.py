"""Steps on a CPU: computed lean, as long as the results are the library's.

That the numbers are the library's is not assumed of any processor, model or version. Every trait
of a batch is computed both ways when it first comes up, by the first requests and on their own
numbers. Sums in another order round in another way; any other difference ends it, and from then on
the library computes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.modeling_outputs import CausalLMOutputWithPast

from modelhost import attention
from modelhost.attention import FULL, lengths
from modelhost.cpu.floats import EXACT_ROWS
from modelhost.cpu.packing import product_of

if TYPE_CHECKING:
    from modelhost.cpu.lean import LeanDecoder

logger = logging.getLogger(__name__)

# What another version of the library would bring about: other names, other shapes.
UNKNOWN = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)

CLOSE = 2.0**-14  # of the largest logit. Measured: 2**-19; far more where a layer differs


class Trait(Enum):
    """What decides which operators and kernels compute a batch."""

    ONE_ROW = auto()
    SOME_ROWS = auto()
    MANY_ROWS = auto()
    ONE_TOKEN = auto()  # of a request
    BEGINNING = auto()  # of a prompt
    CONTINUATION = auto()  # of a prompt, behind what is in the cache


class LeanRunner(ModelRunner):
    """Stands in for the manager's runner.

    lean: whether steps are computed so.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._decoder: LeanDecoder | None = None
        self._proven: set[Trait] = set()

    def prepare(self, model: Any) -> None:
        """Compute this model lean, if it is one that can be."""
        if product_of([getattr(model, "lm_head", model)]) is None:
            return  # it is not packed
        try:
            from modelhost.cpu import lean  # and numba: 110 MB that no other model needs
        except ImportError as error:
            logger.warning("the library computes all steps, which is slower: %s", error)
            return
        try:
            self._decoder = lean.LeanDecoder(model, self.cache)
        except (lean.NotLean, *UNKNOWN) as reason:
            logger.debug("steps are computed by the library: %s", reason)

    @property
    def lean(self) -> bool:
        return self._decoder is not None

    def _forward_process_and_sample(
        self, model: Any, batch_data: dict[str, Any], *rest: Any
    ) -> None:
        def compute(**batch: Any) -> Any:
            return self._compute(model, batch)

        super()._forward_process_and_sample(compute, batch_data, *rest)

    def _compute(self, model: Any, batch: dict[str, Any]) -> Any:
        """Logits as the model itself returns them."""
        if self._decoder is None:
            return _by_the_library(model, batch)
        new = set(_traits(batch)) - self._proven
        if not new:
            return CausalLMOutputWithPast(logits=self._decoder.logits(batch))
        return self._compare(self._decoder, model, batch, new)

    def _compare(
        self, decoder: LeanDecoder, model: Any, batch: dict[str, Any], new: set[Trait]
    ) -> Any:
        """The decoder's logits, where they are the library's, as all later ones will be.

        The library's would be right as well, and other bits: the first answers of a process would
        not be those that the same seeds give later.
        """
        computed = _by_the_library(model, batch).logits
        expected = computed.clone()  # it may be a part of what the model uses again
        try:  # the same keys to the same places, so that these are the decoder's, too
            result, difference = decoder.logits(batch), "other numbers"
        except UNKNOWN as error:
            result, difference = None, repr(error)
        if result is not None and _close(result, expected):
            self._proven |= new
            return CausalLMOutputWithPast(logits=result)
        logger.warning("the library computes all steps, which is slower: %s", difference)
        self._decoder = None
        return _by_the_library(model, batch)  # once more, for its keys


def _by_the_library(model: Any, batch: dict[str, Any]) -> Any:
    with attention.batch(batch):
        return model(**batch)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """False if there is a NaN in them."""
    return bool((one - other).abs().max() <= CLOSE * other.abs().max())


def _traits(batch: dict[str, Any]) -> Iterator[Trait]:
    rows = batch["input_ids"].shape[1]
    few = Trait.ONE_ROW if rows == 1 else Trait.SOME_ROWS
    yield few if rows <= EXACT_ROWS else Trait.MANY_ROWS
    counts, known = lengths(batch["cu_seq_lens_q"]), lengths(batch["cu_seq_lens_k"][FULL])
    for count, keys in zip(counts, known, strict=True):
        if count == 1:
            yield Trait.ONE_TOKEN
        else:
            yield Trait.BEGINNING if count == keys else Trait.CONTINUATION

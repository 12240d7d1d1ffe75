"""That an engine answers, and answers what its model would: asked before anybody else asks.

An engine that starts may still die at its second token, or make a text of its own: a model whose
layers do not hand on what the engine gives them reads no cache, and one whose numbers are too large
for its dtype computes none. So two short prompts are answered beside each other, and the model
itself, without engine and cache, tells for each token whether it would have chosen so. On a GPU
a difference is only logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from modelhost.errors import GenerationFailed, NotReady
from modelhost.types import Sampling, Turn

if TYPE_CHECKING:
    from modelhost.engine import Engine

logger = logging.getLogger(__name__)

TIMEOUT = 120.0  # seconds; a first CUDA kernel may have to be compiled
TEXTS = ("Hi", "Hi! Who are you?")
TOKENS = 3  # one from the prompts, and two from the cache
# How far below the best logit the chosen one may be, as a share of the best one's height above the
# median. Summing in another order makes less of a difference, another text makes more.
NEAR = {torch.float32: 0.01}
NEAR_IN_HALVES = 0.1


def check(engine: Engine, model: Any, *, timeout: float = TIMEOUT) -> None:
    """Raises GenerationFailed, and what rendering and submitting raise."""
    choice = Sampling(max_tokens=TOKENS)
    prompts = [engine.render([Turn("user", text)], max_tokens=TOKENS).token_ids for text in TEXTS]
    try:
        tickets = [engine.submit(prompt, choice) for prompt in prompts]
    except NotReady as error:  # the first one was its end
        raise _silence(engine) from error
    for ticket in tickets:
        if not ticket.wait(timeout) or ticket.finish is None or ticket.finish.error:
            raise _silence(engine)
    if engine.death:  # it was revived, and read everything anew: no answer would get far so
        raise _silence(engine)
    answers = [ticket.delivered for ticket in tickets]
    if not _agree(model, dict(zip(map(tuple, prompts), answers, strict=True))):
        sentence = (
            "The model was loaded, but computed for several requests at once its first tokens are "
            f"not those that it chooses alone in {str(model.dtype).removeprefix('torch.')}."
        )
        if model.device.type == "cpu":
            raise GenerationFailed(sentence)
        logger.warning(sentence)  # where nobody has tried this yet, it must not keep a model away


def _silence(engine: Engine) -> GenerationFailed:
    why = f" ({engine.death})" if engine.death else ""
    return GenerationFailed(f"The model was loaded, but its first tokens did not come{why}.")


def _agree(model: Any, answers: Mapping[Sequence[int], Sequence[int]]) -> bool:
    """Whether the model would have given these answers to these prompts, as far as it can tell."""
    try:
        return all(_chooses(model, prompt, answer) for prompt, answer in answers.items())
    except Exception:  # a model that was prepared for the engine may not compute without it
        logger.warning("the model alone cannot be asked for its tokens", exc_info=True)
        return True


@torch.inference_mode()
def _chooses(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether the model would have chosen each token of the answer, or one as good as that."""
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, -len(answer) :].float()
    best = logits.amax(-1)
    chosen = logits[torch.arange(len(answer)), answer]
    height = best - logits.median(-1).values
    near = NEAR.get(model.dtype, NEAR_IN_HALVES)
    return bool((best - chosen <= near * height).all())  # false for what is no number

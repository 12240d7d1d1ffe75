"""What the engine's tests ask, and what transformers' own loop answers to it."""

from __future__ import annotations

import torch

from modelhost.types import Sampling

PROMPT = [1, 87, 85, 71, 84, 201]
WARM = Sampling(max_tokens=40, temperature=1.2, top_p=0.95, seed=77)
ASKED = Sampling(max_tokens=8)


def prompts(count):
    """Different prompts of different lengths."""
    return [[1, *(10 + (7 * at + step) % 200 for step in range(3 + 5 * at))] for at in range(count)]


def generate(model, prompt, max_tokens, stop_ids=()):
    """What transformers' own loop answers, alone, with greedy sampling."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()

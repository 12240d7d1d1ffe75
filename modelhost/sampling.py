"""Choosing tokens: every request its own temperature, top_k, top_p and seed, in one batch.

The batching manager runs with `do_sample=False` and takes the arg-max of what
comes out of here. Adding Gumbel noise to the logits makes that arg-max an exact
sample (Gumbel-max trick; Maddison, Tarlow and Minka, "A* Sampling", 2014). The
noise is a hash of (seed, position, token), so it depends on nothing else: the
same seed gives the same tokens alone, among neighbours, and after a restart
that continues from stored ids.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)

from modelhost.types import Sampling

COLDEST = 1e-6  # below it float32 division overflows: taken as greedy, which is its limit
MASK64 = (1 << 64) - 1
NOBODYS = Sampling(max_tokens=1)  # of the requests that the library makes up to warm up


class Mode(StrEnum):
    """What a step has to do for the request that asks for the most."""

    GREEDY = "greedy"
    SAMPLED = "sampled"
    TRUNCATED = "truncated"  # by top_k or top_p, which needs the scores in order


def step_key(seed: int, position: int) -> int:
    """A 64-bit key for one step of one request: splitmix64 (Steele et al., 2014) over both."""
    return _splitmix64(_splitmix64(seed & MASK64) ^ position)


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK64
    return value ^ (value >> 31)


def _as_int32(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def _mix(words: torch.Tensor) -> torch.Tensor:
    """A bijective 32-bit finalizer; int32 products wrap, shifts are made logical by the mask."""
    words = words ^ ((words >> 16) & 0xFFFF)
    words = words * 0x7FEB352D
    words = words ^ ((words >> 15) & 0x1FFFF)
    words = words * _as_int32(0x846CA68B)
    return words ^ ((words >> 16) & 0xFFFF)


def gumbel(key_low: torch.Tensor, key_high: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise, float32 [requests, vocabulary], from int32 keys [requests].

    Built from the small end of the uniform variable in float64, so that the large
    values, which decide the arg-max, keep their resolution.
    """
    tokens = torch.arange(vocabulary, dtype=torch.int32, device=key_low.device)
    words = _mix(_mix(tokens.unsqueeze(0) ^ key_low.unsqueeze(1)) ^ key_high.unsqueeze(1))
    uniform = ((words.double() + (2.0**31 + 0.5)) * 2.0**-32).float().clamp(max=1 - 2.0**-24)
    return -torch.log(-torch.log1p(-uniform))


def truncate(scores: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Scores [requests, vocabulary] with everything outside top_k and top_p at minus infinity.

    top_k: int32 [requests], 0 is off. top_p: float32 [requests], 1 is off. As in
    transformers, top_p looks at what top_k left; the best token always stays.
    """
    ordered = torch.sort(scores, dim=-1, descending=True).values
    ranks = torch.arange(scores.size(-1), device=scores.device).unsqueeze(0)
    outside_k = (ranks >= top_k.unsqueeze(1)) & (top_k > 0).unsqueeze(1)
    ordered = ordered.masked_fill(outside_k, -torch.inf)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    outside_p = (before >= top_p.unsqueeze(1)) & (top_p < 1).unsqueeze(1) & (ranks > 0)
    kept = ordered.masked_fill(outside_p, torch.inf)
    threshold = kept.masked_fill(outside_k, torch.inf).amin(dim=-1, keepdim=True)
    return scores.masked_fill(scores < threshold, -torch.inf)


class RequestSampler(ContinuousBatchingLogitsProcessorList):
    """Stands in for the manager's list of processors: one that knows each request's Sampling.

    The manager copies `tensors_required` rows of int32, one column per new token,
    to the device at each step; floats travel as their bits.
    """

    def __init__(self) -> None:
        super().__init__(LogitsProcessorList())
        self.tensors_required = 5
        self.do_processing = True
        self.mode = Mode.TRUNCATED  # of the step that is being prepared; a CUDA graph is for one

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Nothing to check: the engine validated the Sampling before it was submitted."""

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Padding columns are greedy."""
        int32_tensor.zero_()

    def prepare_tensor_args(
        self, requests_in_batch: list[Any], arg_storage: torch.Tensor
    ) -> torch.Tensor:
        """Fill the rows for the requests that get a token in this step."""
        states = [request.state for request in requests_in_batch if request.has_new_token]
        choices: list[Sampling] = [
            state.logit_processor_kwargs.get("sampling", NOBODYS) for state in states
        ]
        # The position is absolute in the sequence, so a request that was cut and continued,
        # or whose cache was evicted and prefilled again, draws the same noise.
        keys = [
            step_key(choice.seed, state.position_offset)
            for choice, state in zip(choices, states, strict=True)
        ]
        floats = torch.tensor(
            [[c.temperature for c in choices], [c.top_p for c in choices]], dtype=torch.float32
        )
        words = torch.tensor(
            [
                [c.top_k for c in choices],
                [_as_int32(key & 0xFFFFFFFF) for key in keys],
                [_as_int32(key >> 32) for key in keys],
            ],
            dtype=torch.int32,
        )
        rows = torch.cat([floats.view(dtype=torch.int32), words])
        arg_storage[:, : len(states)] = rows.to(arg_storage.device)
        sampled = floats[0] >= COLDEST
        truncated = sampled & ((words[0] > 0) | (floats[1] < 1))
        self.mode = (
            Mode.TRUNCATED if truncated.any() else Mode.SAMPLED if sampled.any() else Mode.GREEDY
        )
        return arg_storage

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, logits_processor_args: torch.Tensor
    ) -> torch.Tensor:
        """Scores [requests, vocabulary] whose arg-max is each request's next token."""
        if self.mode is Mode.GREEDY:
            return scores
        rows = logits_processor_args[:, : scores.size(0)].contiguous()
        temperature, top_p = rows[0].view(torch.float32), rows[1].view(torch.float32)
        scale = temperature.clamp(min=COLDEST).unsqueeze(1)
        scaled = (scores - scores.amax(dim=-1, keepdim=True)) / scale
        if self.mode is Mode.TRUNCATED:
            scaled = truncate(scaled, rows[2], top_p)
        noisy = scaled + gumbel(rows[3], rows[4], scores.size(-1))
        return torch.where((temperature >= COLDEST).unsqueeze(1), noisy, scores)

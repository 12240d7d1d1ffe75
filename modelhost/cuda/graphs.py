"""CUDA graphs for the steps that are many and small: those in which requests get one token each.

The manager would capture a graph for every number of tokens that a step can have, prompts
included: each takes longer than the prompt itself. Here a step is captured only up to as many
tokens as there may be requests, at a few sizes, and larger steps run as they are.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.generation.continuous_batching.requests import (
    RequestStatus,
    create_warmup_future_states,
)
from transformers.generation.continuous_batching.utils import CudaGraphBuffer, pad_to_pow2

SMALLEST_STEP = 8  # tokens; fewer are filled up to it
SMALLEST_READ = 1024  # cached tokens, likewise


class GraphRunner(ModelRunner):
    """Stands in for the manager's runner, on CUDA.

    A graph repeats what was captured, whatever Python would decide now. So what Python decides
    within a step is part of a graph's name: whether every request has one token, and what the
    sampler has to do.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._graphs: dict[tuple[int, Any, bool], CudaGraphBuffer] = defaultdict(CudaGraphBuffer)
        self._largest = self.cb_config.max_requests_per_batch

    def maybe_pad_inputs(
        self, num_q_tokens: int, max_kv_read: int, use_decode_fast_path: bool
    ) -> tuple[int, int]:
        """The size at which a step is computed: tokens, and cached tokens to read."""
        if use_decode_fast_path and self.cache.max_decode_fast_path_length > 0:
            padded: tuple[int, int] = super().maybe_pad_inputs(num_q_tokens, max_kv_read, True)
            return padded
        if num_q_tokens > self._largest:
            return num_q_tokens, max_kv_read
        tokens = pad_to_pow2(num_q_tokens, self._largest, SMALLEST_STEP)
        if max_kv_read:
            max_kv_read = pad_to_pow2(max_kv_read, self.cache.max_tokens_read, SMALLEST_READ)
        return tokens, max_kv_read

    def compute_batch(self, model: Any, batch_data: dict[str, Any]) -> None:
        """One step; see ModelRunner."""
        pair, io = self._current()
        alone = io.total_seqlen_q == io.num_request_in_batch
        if alone:
            batch_data["max_length_q"] = 1
        io.graphs = self._graphs[pair, self.logit_processor.mode, alone]
        super().compute_batch(model, batch_data)

    def warmup(self, model: Any) -> None:
        """The largest step, for its memory, then the small ones that every answer needs."""
        super().warmup(model)
        for _ in range(len(self._pairs())):
            count = 1
            while count <= self._largest:
                self._warm_up_tokens(model, count)
                count *= 2
            if len(self._pairs()) > 1:
                self.inputs_and_outputs.swap_io_pairs()
        self.cache.reset()

    def _warm_up_tokens(self, model: Any, count: int) -> None:
        """So many requests with one token each, and one in the cache."""
        states = create_warmup_future_states(count, RequestStatus.DECODING, 1, 1, self.cache)
        tokens, read = self.maybe_pad_inputs(count, count, False)
        io = self.inputs_and_outputs
        try:
            io.prepare_batch_tensors(
                states, self.logit_processor, False, tokens, read, use_padding=True
            )
            self.compute_batch(model, io.get_model_kwargs(use_padding=True))
        finally:
            for one in states:
                self.cache.free_blocks(one.state.request_id)

    def _get_forward_fn(self, use_block_table: bool) -> tuple[Any, bool]:
        forward, captured = super()._get_forward_fn(use_block_table)
        if not use_block_table:
            captured = captured and self._current()[1].num_q_tokens <= self._largest
        return forward, captured

    def _pairs(self) -> list[Any]:
        """What a step's tensors live in; two sets where steps are prepared while others run."""
        io = self.inputs_and_outputs
        return [pair.device_io for pair in io.io_pairs] if hasattr(io, "io_pairs") else [io]

    def _current(self) -> tuple[int, Any]:
        at = getattr(self.inputs_and_outputs, "current_pair", 0)
        return at, self._pairs()[at]

"""transformers' continuous-batching manager, set up for one model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig

from modelhost import attention, sampling, scheduling

CPU_CACHE_TOKENS = 16_384


def new_manager(
    model: Any, *, stop_ids: Collection[int], cache_tokens: int | None, share_prefixes: bool = False
) -> Any:
    """A manager that takes arg-maxes of what RequestSampler makes of the logits."""
    on_cuda = model.device.type == "cuda"
    config = ContinuousBatchingConfig(
        allow_block_sharing=share_prefixes,  # within one owner: the scheduler sees to that
        auto_switch_to_flash=on_cuda,
        scheduler_type=scheduling.NAME,
    )
    if on_cuda:
        config.max_requests_per_batch = 256
        if cache_tokens is not None:
            config.num_blocks = -(-cache_tokens // config.page_size)
    else:
        attention.install()
        config.page_size = 16  # small pages and batches: first tokens wait less on a CPU
        config.max_batch_tokens = 256
        config.max_requests_per_batch = 64
        config.num_blocks = -(-(cache_tokens or CPU_CACHE_TOKENS) // config.page_size)
    configure: Any = GenerationConfig
    generation = configure(do_sample=False, eos_token_id=sorted(stop_ids), max_new_tokens=1)
    manager = model.init_continuous_batching(generation, config)
    manager.logit_processor = sampling.RequestSampler(branch_free=on_cuda)
    return manager

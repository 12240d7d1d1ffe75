"""transformers' continuous-batching manager, set up for one model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from modelhost import attention, sampling, scheduling
from modelhost.cpu.steps import LeanRunner
from modelhost.cuda import flash
from modelhost.cuda.graphs import GraphRunner
from modelhost.manager import Manager
from modelhost.speculation import Speculator

CPU_CACHE_TOKENS = 16_384
CARD_CACHE_TOKENS = 262_144  # tables as long as the cache go to the card with every step
CARD_SHARE = 0.75  # of the memory that is free once the weights are there
DRAFTS_READ = 0.25  # bytes of the cache that drafts may read in a step, as a share of the weights'
DRAFTS_READ_TOKENS = 2048  # however small the weights


def new_manager(
    model: Any,
    *,
    stop_ids: Collection[int],
    cache_tokens: int | None,
    share_prefixes: bool = True,
    speculate: bool = True,
    gather: Callable[[], None],
) -> Manager:
    """A manager that takes arg-maxes of what RequestSampler makes of the logits.

    gather: called before the first step after a pause, where web side and engine share processors.
    """
    config = ContinuousBatchingConfig(
        allow_block_sharing=share_prefixes,  # within one owner: the scheduler sees to that
        auto_switch_to_flash=False,  # it would also fetch a kernel from a hub
        scheduler_type=scheduling.NAME,
    )
    on_cuda = model.device.type == "cuda"
    (_for_a_card if on_cuda else _for_a_cpu)(config, model, cache_tokens)
    configure: Any = GenerationConfig
    generation = configure(do_sample=False, eos_token_id=sorted(stop_ids), max_new_tokens=1)
    manager: Any = model.init_continuous_batching(generation, config)
    manager.logit_processor = sampling.RequestSampler()
    if on_cuda and manager.continuous_batching_config.cuda_graph_booleans[0]:
        _capture_graphs(manager)
    elif not on_cuda:
        _step_lean(manager)
        _begin_together(manager, gather)
        if speculate:
            _speculate(manager)
    return manager


def _for_a_cpu(config: ContinuousBatchingConfig, _: Any, cache_tokens: int | None) -> None:
    attention.install()
    config.page_size = 16  # small pages and batches: first tokens wait less on a CPU
    config.max_batch_tokens = 256
    config.max_requests_per_batch = 64
    config.num_blocks = -(-(cache_tokens or CPU_CACHE_TOKENS) // config.page_size)


def _for_a_card(config: ContinuousBatchingConfig, model: Any, cache_tokens: int | None) -> None:
    if is_flash_attn_2_available() or is_flash_attn_3_available():
        config.auto_switch_to_flash = True
    elif flash.fits(model):
        flash.use(model)
        config.page_size = 32  # a beginning is shared in whole pages
    else:
        attention.install()  # for scores that a model changes; everything else is the library's
    config.max_batch_tokens = 2048
    config.max_requests_per_batch = 256
    tokens = cache_tokens or min(CARD_CACHE_TOKENS, _room(model))
    config.num_blocks = -(-tokens // config.page_size)


def _room(model: Any) -> int:
    """Tokens whose keys and values fit beside the weights."""
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(CARD_SHARE * free) // _bytes_each(model)


def _bytes_each(model: Any) -> int:
    """Bytes of one token's keys and values."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * dim * model.dtype.itemsize)


def _step_lean(manager: Any) -> None:
    processor = manager.batch_processor = manager._create_batch_processor()
    processor.model_runner = _runner(LeanRunner, processor)
    processor.model_runner.prepare(manager.model)


def _begin_together(manager: Any, gather: Callable[[], None]) -> None:
    """Have the first step after a pause wait until `gather` returns."""
    processor = manager.batch_processor
    prepare = processor.prepare_next_batch

    def prepare_next_batch() -> bool:
        if not processor.scheduler.active_requests:
            gather()
        return bool(prepare())

    processor.prepare_next_batch = prepare_next_batch


def _speculate(manager: Any) -> None:
    processor = manager.batch_processor
    # A layer with a window overwrites old keys at once: what is drafted may not stay.
    if all(one.layer_type == attention.FULL for one in processor.cache.cache_allocators.values()):
        weights = sum(one.numel() * one.itemsize for one in manager.model.parameters())
        tokens = int(DRAFTS_READ * weights) // _bytes_each(manager.model)
        processor.scheduler.speculator = Speculator(
            processor.cache, reads=max(tokens, DRAFTS_READ_TOKENS)
        )


def _capture_graphs(manager: Any) -> None:
    processor = manager.batch_processor = manager._create_batch_processor()
    processor.model_runner = _runner(GraphRunner, processor)


def _runner(kind: type[ModelRunner], processor: Any) -> ModelRunner:
    """Another kind of runner, over the parts of this processor's own."""
    return kind(
        logit_processor=processor.logit_processor,
        cb_config=processor.cb_config,
        cache=processor.cache,
        inputs_and_outputs=processor.inputs_and_outputs,
        do_sample=processor.do_sample,
        return_logprobs=processor.return_logprobs,
    )

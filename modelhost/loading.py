"""From a ModelSpec to an engine that answers: everything heavy happens here."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module

import torch

from modelhost import checkpoints, prompts, proof
from modelhost.checkpoints import quantization
from modelhost.cpu import halves, packing
from modelhost.cuda import fusion
from modelhost.engine import Engine
from modelhost.errors import (
    BadSampling,
    LoadFailed,
    ModelHostError,
    PromptTooLong,
    first_line,
)
from modelhost.progress import Progress
from modelhost.types import ModelSpec, Rendered


def load(spec: ModelSpec, progress: Progress) -> Engine:
    """Load the model, start its engine and see one token come out. Raises LoadFailed."""
    where = pick_placement(spec)
    try:
        if where.is_plain_cpu:
            threading.Thread(target=_compile, name="modelhost-kernels", daemon=True).start()
        progress.begin("Looking for the model")
        checkpoint = checkpoints.locate(spec, progress)
        loaded = checkpoint.load(where, progress)
        packing.pack(loaded.model)
        if where.device.type == "cuda":
            fusion.fuse(loaded.model)
        progress.begin("Making the first token")
        return start(loaded, checkpoint, spec)
    except (torch.OutOfMemoryError, MemoryError) as error:  # the device's, or for the cache
        raise LoadFailed(
            f"{spec.model} with its cache does not fit into the memory of the device "
            f"{where.device}. Choose a smaller dtype, a smaller LLMSITE_CACHE_TOKENS or another "
            "device."
        ) from error
    finally:
        progress.end()


def _compile() -> None:
    """Compile the kernels while weights load. What fails here fails again where they are used."""
    with suppress(ImportError):
        import_module("modelhost.cpu.lean")


def start(
    loaded: checkpoints.Loaded, checkpoint: checkpoints.Checkpoint, spec: ModelSpec
) -> Engine:
    """An engine around a loaded model, running and proven. Raises LoadFailed."""
    try:
        engine = Engine(
            loaded,
            name=checkpoint.name,
            revision=checkpoint.revision,
            adapter=checkpoint.adapter.label if checkpoint.adapter else "",
            cache_tokens=spec.cache_tokens,
            max_requests=spec.max_requests,
            share_prefixes=spec.share_prefixes,
            speculate=spec.speculate,
            patience=spec.patience,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the library reads any config, and refuses in any way
        raise LoadFailed(
            f"{spec.model} cannot be served in batches: {first_line(error)}."
        ) from error
    engine.start()
    try:
        proof.check(engine, loaded.model)
    except BaseException as error:
        engine.stop()  # or its thread would hold the model for as long as the process lives
        if isinstance(error, ModelHostError):
            raise LoadFailed(f"{spec.model} cannot answer: {_why(error, engine)}") from error
        raise
    return engine


def _why(error: ModelHostError, engine: Engine) -> str:
    """What the proof met, in the words of whoever chose the model and not of a caller."""
    if isinstance(error, BadSampling) and error.field == "token_ids":
        return (
            f"its tokenizer gives ids that its {engine.card.vocabulary} tokens do not have. "
            "Take the tokenizer and the weights from the same release."
        )
    if not isinstance(error, PromptTooLong | BadSampling):
        return str(error)
    left = max(0, engine.card.context_length)
    return (
        f"its cache leaves {left} tokens for a prompt and its answer. "
        "Choose a larger LLMSITE_CACHE_TOKENS, or a device with more memory."
    )


def describe(spec: ModelSpec) -> checkpoints.Description:
    """What `load` would load, from small files only. Raises LoadFailed."""
    where = pick_placement(spec)
    return checkpoints.locate(spec, Progress()).describe(where)


def renderer(spec: ModelSpec) -> Callable[..., Rendered]:
    """A `render(turns, max_tokens=None)` that reads no weights. Raises LoadFailed."""
    where = pick_placement(spec)
    checkpoint = checkpoints.locate(spec, Progress())
    known = checkpoint.describe(where)
    return functools.partial(prompts.render, checkpoint.chat_format(), context=known.context_length)


def pick_placement(spec: ModelSpec) -> checkpoints.Placement:
    """Device, dtype and quantization of a spec. Raises LoadFailed."""
    device = pick_device(spec.device)
    dtype, quantize = pick_dtype(spec.dtype, device), quantization.pick(spec.quantize, device)
    where = checkpoints.Placement(device, dtype, quantize)
    return replace(where, halves=where.is_plain_cpu and halves.available())


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises LoadFailed."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LoadFailed(f"{name!r} is not a device. Use auto, cpu, cuda or cuda:0.") from None
    if device.type == "meta":
        raise LoadFailed("The device meta holds no weights. Use auto, cpu, cuda or cuda:0.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LoadFailed(f"LLMSITE_DEVICE is {name}, but torch sees no CUDA device here.")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bf16 or fp16 on CUDA, whichever the card computes natively, and fp32 on CPU.

    Raises LoadFailed.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    named = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}.get(name, name)
    dtype = getattr(torch, named, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise LoadFailed(f"{name!r} is not a dtype. Use auto, fp32, fp16 or bf16.")
    return dtype

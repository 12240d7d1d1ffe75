"""ChatGLM3-6B's true shape with random weights, through the real loader and engine.

    python -m bench.chatglm [--layers 28] [--device cuda] [--dtype bf16] [--quantize int8]

Writes a checkpoint in the published layout into a temporary folder (12.5 GB in fp16 at 28
layers), loads it as any other, and prints load time, memory and tokens/s at batch 1, 8, 32
and 128 beside the memory-bandwidth limit: every step reads every weight once, so a batch of
one makes at most bandwidth / bytes-of-weights tokens per second.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from bench.checkpoint import Shape, write_checkpoint
from modelhost.engine import Engine
from modelhost.loading import describe, load
from modelhost.progress import Progress
from modelhost.types import ModelSpec, Sampling

BATCHES = (1, 8, 32, 128)
TOKENS = 64


def main() -> None:
    """Build, load, measure, print."""
    options = parser().parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        write_checkpoint(Path(name), Shape(layers=options.layers))
        spec = ModelSpec(
            model=name, device=options.device, dtype=options.dtype, quantize=options.quantize
        )
        begun = time.perf_counter()
        engine = load(spec, Progress(terminal=True))
        seconds = time.perf_counter() - begun
        report(engine, seconds, size=describe(spec).memory_bytes)
        engine.stop()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--layers", type=int, default=28, help="28 is the true depth")
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    made.add_argument("--quantize", default="")
    made.add_argument("--folder", help="where to put the checkpoint; default: the system's")
    return made


def report(engine: Engine, seconds: float, *, size: int) -> None:
    """The table. size: of the weights, in bytes."""
    card = engine.card
    bandwidth = copy_bandwidth(card.device)
    print(
        f"{card.architecture}, {card.parameters / 1e9:.2f} billion parameters, {card.dtype}, ",
        end="",
    )
    print(f"{device_name(card.device)}, torch {torch.__version__}\n")
    print("| what | figure |\n|---|---|")
    print(f"| load, first token included | {seconds:.1f} s |")
    print(f"| weights | {size / 1e9:.2f} GB |")
    print(f"| peak host memory | {peak_host_gb():.2f} GB |")
    if card.device.startswith("cuda"):
        print(f"| peak device memory | {torch.cuda.max_memory_allocated() / 1e9:.2f} GB |")
    print(f"| copy bandwidth, read and write | {bandwidth / 1e9:.0f} GB/s |")
    print(f"| limit for batch 1 | {bandwidth / size:.1f} tokens/s |")
    for batch in BATCHES:
        rate = tokens_per_second(engine, batch)
        print(f"| batch {batch} | {rate:.1f} tokens/s, ", end="")
        print(f"{rate / batch / (bandwidth / size):.2f} of the limit for each step |")


def tokens_per_second(engine: Engine, batch: int) -> float:
    """So many generations at once, each of TOKENS tokens; random weights seldom stop by chance."""
    prompt = list(range(3, 35))
    choice = Sampling(max_tokens=TOKENS)
    for ticket in [engine.submit(prompt, choice) for _ in range(batch)]:
        ticket.wait(600)  # once to warm up: kernels, graphs
    begun = time.perf_counter()
    tickets = [engine.submit(prompt, choice) for _ in range(batch)]
    made = 0
    for ticket in tickets:
        if not ticket.wait(600) or ticket.finish is None or ticket.finish.error:
            raise RuntimeError("a generation did not finish")
        made += ticket.finish.usage.completion_tokens
    return made / (time.perf_counter() - begun)


def copy_bandwidth(device: str) -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rounds = 10
    target.copy_(source)
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(rounds):
        target.copy_(source)
    synchronize(device)
    return 2 * rounds * source.numel() / (time.perf_counter() - begun)


def synchronize(device: str) -> None:
    """Wait for what was started on a card."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """The card's name, or CPU with its threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def peak_host_gb() -> float:
    """The most memory that this process held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()

"""What smaller weights change: how often the greedy token stays the same, and the speed.

    python -m bench.agreement [--model demo] [--quantize int8 | --smaller bf16] [--tokens 64]

Twenty prompts are answered greedily, one at a time, by the engine with whole and with smaller
weights. Two shares of equal tokens are printed. "Given the same text" shows the smaller model
the whole one's own answer and asks for each next token: how often a single choice changes. "As
answered" compares the answers position by position: after the first change the rest is another
text, so this share is much smaller.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass, replace

import torch

from modelhost import checkpoints, loading
from modelhost.checkpoints import Loaded
from modelhost.engine import Engine
from modelhost.progress import Progress
from modelhost.ticket import Ticket
from modelhost.types import ModelSpec, Sampling, Turn

PROMPTS = (
    "What is the capital of France?",
    "Write a long story about a lighthouse keeper.",
    "Explain why the sky is blue.",
    "Give me a recipe for pancakes.",
    "How do I reverse a list in Python?",
    "Name five animals that live in the sea.",
    "What is the difference between weather and climate?",
    "Write a short poem about autumn.",
    "Who wrote Romeo and Juliet?",
    "Summarize the plot of Cinderella.",
    "What is 12 times 12?",
    "List the planets of the solar system.",
    "Why do leaves change their color?",
    "How does a bicycle stay upright?",
    "Write an email that asks for a day off.",
    "What should I pack for a week at the beach?",
    "Explain what a database index is.",
    "Tell me a joke about computers.",
    "What causes the tides?",
    "Describe the taste of an orange to somebody who never had one.",
)


@dataclass(frozen=True, slots=True)
class Answered:
    """Prompts and answers as ids, and how fast they came."""

    prompts: list[list[int]]
    answers: list[list[int]]
    tokens_per_second: float


def main() -> None:
    """Answer, compare, print."""
    options = parser().parse_args()
    spec = ModelSpec(model=options.model, device=options.device, dtype=options.dtype)
    whole = answer(load(spec), spec, options.tokens)
    small_spec = (
        replace(spec, dtype=options.smaller)
        if options.smaller
        else replace(spec, quantize=options.quantize)
    )
    loaded = load(small_spec)
    given = forced_agreement(loaded, whole)  # before the engine sets the model up for batches
    small = answer(loaded, small_spec, options.tokens)
    print(f"{len(PROMPTS)} prompts, at most {options.tokens} tokens each, one at a time\n")
    print(f"| what | whole | {options.smaller or options.quantize} |\n|---|---|---|")
    print(f"| speed | {whole.tokens_per_second:.1f} tokens/s ", end="")
    print(f"| {small.tokens_per_second:.1f} tokens/s |")
    print(f"| equal tokens, given the same text | | {given:.1%} |")
    print(f"| equal tokens, as answered | | {agreement(whole, small):.1%} |")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--model", default="demo")
    made.add_argument("--quantize", default="int8")
    made.add_argument("--smaller", default="", help="a dtype to compare with, not quantized")
    made.add_argument("--tokens", type=int, default=64)
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    return made


def load(spec: ModelSpec) -> Loaded:
    """The model and its format, no engine yet."""
    return checkpoints.locate(spec, Progress()).load(loading.pick_placement(spec), Progress())


def answer(loaded: Loaded, spec: ModelSpec, tokens: int) -> Answered:
    """All prompts, one after the other, through the engine."""
    engine = loading.start(loaded, checkpoints.locate(spec, Progress()), spec)
    prompts = [engine.render([Turn("user", prompt)]).token_ids for prompt in PROMPTS]
    ids_of(engine, prompts[0], tokens)  # once to warm up
    begun = time.perf_counter()
    answers = [ids_of(engine, prompt, tokens) for prompt in prompts]
    seconds = time.perf_counter() - begun
    engine.stop()
    return Answered(prompts, answers, sum(map(len, answers)) / seconds)


def ids_of(engine: Engine, prompt: list[int], tokens: int) -> list[int]:
    """One greedy answer."""
    ticket: Ticket = engine.submit(prompt, Sampling(max_tokens=tokens))
    if not ticket.wait(600) or ticket.finish is None or ticket.finish.error:
        raise RuntimeError("a generation did not finish")
    return collected(ticket)


def collected(ticket: Ticket) -> list[int]:
    """The ids of a ticket that has ended."""

    async def read() -> list[int]:
        return [token_id async for piece in ticket for token_id in piece.token_ids]

    return asyncio.run(read())


def forced_agreement(loaded: Loaded, whole: Answered) -> float:
    """How often this model's choice is the other's, both seeing the other's answer so far."""
    equal = total = 0
    for prompt, said in zip(whole.prompts, whole.answers, strict=True):
        seen = torch.tensor([[*prompt, *said[:-1]]], device=loaded.model.device)
        with torch.no_grad():
            logits = loaded.model(seen).logits[0, len(prompt) - 1 :]
        equal += int((logits.argmax(-1).cpu() == torch.tensor(said)).sum())
        total += len(said)
    return equal / total


def agreement(one: Answered, other: Answered) -> float:
    """The share of the first one's ids that the other has at the same place."""
    pairs = zip(one.answers, other.answers, strict=True)
    equal = sum(a == b for left, right in pairs for a, b in zip(left, right, strict=False))
    return equal / sum(map(len, one.answers))


if __name__ == "__main__":
    main()

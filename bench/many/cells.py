"""One measurement: a contender under a load, once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.many import neighbours
from bench.many.answers import Answer
from bench.many.contenders import Contender
from bench.many.conversations import Count
from bench.many.jobs import Job


@dataclass(frozen=True, slots=True)
class Cell:
    """tokens: of the received text, by the model's own tokenizer, the same for everybody.

    cpu: seconds of the contender's processes. client_cpu: of the load generator; none where
    contender and generator are one. peak: resident bytes. others: the share of the machine that
    other programs used meanwhile.
    """

    contender: str
    answers: list[Answer]
    seconds: float
    tokens: int
    cpu: float
    client_cpu: float
    peak: int
    others: float

    def __str__(self) -> str:
        rate, others = f"{self.rate:.1f} tokens/s", f"{self.others:.0%} used by others"
        return f"{self.contender}: {rate} in {self.seconds:.1f} s, {others}"

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    @property
    def cpu_per_thousand(self) -> float:
        """CPU seconds for 1,000 tokens."""
        return self.cpu / self.tokens * 1000 if self.tokens else 0.0

    @property
    def firsts(self) -> list[float]:
        """Seconds to the first piece, of each answer that has one."""
        return [answer.seconds_to_first for answer in self.answers if answer.pieces]

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces, of all answers."""
        return [gap for answer in self.answers for gap in answer.gaps]

    @property
    def first(self) -> float:
        """The median of `firsts`."""
        return statistics.median(self.firsts or [0.0])


def measure(contender: Contender, job: Job, count: Count) -> Cell:
    """Wake the contender, have the job done, let it sleep again."""
    program = contender.program
    with contender.awake():
        program.forget_peak()
        cpu, busy = program.cpu(), neighbours.busy()
        done = contender.do(job)
        used, everything = program.cpu() - cpu, neighbours.busy() - busy
        peak = program.peak()
    client_cpu = 0.0 if contender.worker is program else done.cpu
    return Cell(
        contender.name,
        done.answers,
        done.seconds,
        tokens=sum(count(answer.text) for answer in done.answers),
        cpu=used,
        client_cpu=client_cpu,
        peak=peak,
        others=neighbours.share(everything - used - client_cpu, done.seconds),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def pooled(cells: Sequence[Cell], pick: Callable[[Cell], list[float]]) -> list[float]:
    """The values of several cells together."""
    return [value for one in cells for value in pick(one)]

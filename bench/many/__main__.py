"""`make bench`: this project, `transformers serve`, a tutorial's app and the engine alone.

All of them load the same folder, are asked the same by the same load generator, and run one at a
time, the others asleep. A ratio is formed within a round, only of equal answers.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from bench.many import (
    arrivals,
    followers,
    lag,
    machine,
    neighbours,
    own_route,
    second_turn,
    start,
    steady,
    threads,
)
from bench.many.contenders import OURS, Contender, contenders, running
from bench.many.conversations import Size
from bench.many.model import counter, folder
from bench.many.options import parsed, wanted
from bench.many.report import Report
from bench.many.rounds import Results, job, measure_round, warm_up
from bench.many.servers import Setup, llmsite
from bench.many.tables import figures, ratios, share_of_ceiling

BUSY = 32  # clients of what is measured under load


def main() -> None:
    """Measure, print, write."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what was started is stopped
    options = parsed()
    begun = time.perf_counter()
    model = folder(options.model)
    report = Report()
    report.add(
        "## Many at once, beside what people would use instead", machine.described(options.threads)
    )
    for device in options.devices.split(",") if options.devices else machine.devices():
        with tempfile.TemporaryDirectory(prefix="bench-") as workspace:
            setup = Setup(model, device, Path(workspace), options.threads, options.dtype)
            size = Size(counter(model), options.tokens, options.longest)
            measure_device(setup, options, size, report)
    report.add(f"All of this took {(time.perf_counter() - begun) / 60:.0f} minutes.")
    if not options.no_write:
        report.write()


def measure_device(setup: Setup, options: Namespace, size: Size, report: Report) -> None:
    """Everything on one device."""
    report.add(
        f"### {setup.model.name}, {setup.dtype}, {setup.device}",
        f"Greedy answers of at most {size.answer} tokens to prompts of 20 to {size.longest}, every "
        "fourth conversation with a second turn. Tokens are counted in the text that arrived. "
        f"Median (smallest–largest) of {options.rounds} rounds. Others: the largest share of the "
        "machine that programs of no part in it used.",
    )
    if wanted(options, "start"):
        report.add(*start.compare(setup))
    if wanted(options, "followers"):
        with running(llmsite(setup), setup) as server:
            report.add(followers.measure(server, options.followers))
    with contenders(setup, without=options.without) as everyone:
        warm_up(everyone, size)
        if wanted(options, "rounds"):
            measure_rounds(everyone, options, size, report)
        measure_extras(everyone, options, size, report)


def measure_rounds(
    everyone: list[Contender], options: Namespace, size: Size, report: Report
) -> None:
    """The grid and its ratios."""
    results = Results()
    for number in range(options.rounds):
        for clients, cell in measure_round(
            everyone, number, options.clients, size, patience=options.patience
        ):
            results.add(clients, cell)
            say(f"round {number + 1}, {clients} clients, {cell}")
    report.add(figures(results))
    made, refused = ratios(results)
    report.add("The same as ratios, formed within each round:", made)
    if refused:
        report.add("Rounds without a ratio, because the answers were not the same:")
        report.add_list(refused)
    report.add(share_of_ceiling(results))


def say(text: str) -> None:
    """For whoever watches."""
    print(text, file=sys.stderr, flush=True)


def measure_extras(
    everyone: list[Contender], options: Namespace, size: Size, report: Report
) -> None:
    """What is measured once."""
    ours = next(one for one in everyone if one.name == OURS)
    several = min(BUSY, max(options.clients))
    neighbours.wait_for_quiet(options.patience)
    if wanted(options, "own-route"):
        report.add(*own_route.compare(ours, [several], size))
    if wanted(options, "arrivals"):
        rate, number = options.rate, options.arrivals
        report.add(*arrivals.compare(everyone, size, rate=rate, number=number))
    if wanted(options, "second-turn"):
        report.add(*second_turn.compare(everyone, size))
    if wanted(options, "lag"):
        report.add(*lag.compare(everyone, size))
    if wanted(options, "threads"):
        report.add(*threads.breakdown(ours, job(several, size, label="threads"), size.count))
    if wanted(options, "steady"):
        report.add(steady.measure(ours, size, minutes=options.minutes))


if __name__ == "__main__":
    main()

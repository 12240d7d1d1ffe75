"""A ratio says how much faster the same work was done; between different answers there is none."""

from __future__ import annotations

import pytest

from bench.many.answers import Answer
from bench.many.cells import Cell
from bench.many.rounds import Results
from bench.many.second_turn import row
from bench.many.tables import ratio, ratios, share_of_ceiling

SAME = ("One, two.", "Three.")


def cell(contender: str, *texts: str, seconds: float = 1.0, error: str = "") -> Cell:
    """A round in which these answers came, the first piece of each after a tenth of the time."""
    answers = [
        Answer(f"talk-{number}", 0.0, [(seconds / 10, text)] if text else [], error)
        for number, text in enumerate(texts)
    ]
    tokens = sum(len(text.split()) for text in texts)
    return Cell(contender, answers, seconds, tokens, seconds, 0.0, peak=1, others=0.0)


def test_a_ratio_is_the_median_of_its_rounds_with_their_spread():
    ours = [cell("llmsite", *SAME, seconds=seconds) for seconds in (1.0, 0.5, 0.8)]
    theirs = [cell("tutorial", *SAME, seconds=4.0)] * 3

    (rate, first, cpu, rounds), refused = ratio(ours, theirs)
    assert rate == "5.00 (4.00–8.00)"
    assert first == cpu == "0.20 (0.12–0.25)"
    assert (rounds, refused) == ("3 of 3", [])


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (cell("tutorial", *SAME, error="status 500"), "tutorial talk-0: status 500"),
        (cell("tutorial", "One, two.", ""), "tutorial talk-1: empty"),
        (cell("tutorial", "One, too.", "Three."), "talk-0 parts after 6 characters"),
        (cell("tutorial", "One, two."), "talk-1: tutorial was not asked"),
        (cell("tutorial", *SAME, "Four."), "talk-2: llmsite was not asked"),
    ],
)
def test_there_is_no_ratio_between_answers_that_failed_or_differ(theirs, why):
    sides, refused = ratio([cell("llmsite", *SAME)], [theirs])

    assert sides == ["refused", "refused", "refused", "0 of 1"]
    assert refused[0].startswith(f"round 1: {why}")


def test_a_round_without_a_ratio_is_named_and_leaves_the_others_alone():
    ours = [cell("llmsite", *SAME)] * 2
    theirs = [cell("tutorial", "Else.", "Three."), cell("tutorial", *SAME, seconds=6.0)]

    sides, refused = ratio(ours, theirs)
    assert (sides[0], sides[-1]) == ("6.00", "1 of 2")
    assert len(refused) == 1
    assert refused[0].startswith("round 1: ")


def test_the_share_of_the_ceiling_is_a_ratio_like_any_other():
    results = Results()
    for contender, seconds in (("llmsite", 1.0), ("engine alone", 0.9)):
        results.add(32, cell(contender, *SAME, seconds=seconds))
    results.add(64, cell("llmsite", *SAME))
    results.add(64, cell("engine alone", *SAME, error="died"))

    assert share_of_ceiling(results).endswith(": 90% at 32, refused at 64.")
    table, notes = ratios(results)
    assert "| 32 | llmsite / engine alone | 0.90 |" in table
    assert notes[0].startswith("64 clients, round 1: engine alone talk-0: died")


def test_a_second_turn_that_failed_is_no_fast_one():
    first, second = Answer("turns-0.1", 0.0, [(2.0, "One")]), Answer("turns-0.2", 3.0, [(3.1, "x")])
    assert row("llmsite", [first, second]) == ["llmsite", "2.00 s", "0.10 s", "0.05"]
    second.error = "the stream was cut"
    assert row("llmsite", [first, second]) == ["llmsite", "refused", "refused", "refused"]

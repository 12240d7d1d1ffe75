"""kill -9 at any moment: nothing acknowledged is lost, nothing is doubled, everything ends."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from chat.lifecycle.record import LEASE
from tests.torture.promises import broken, unfinished
from tests.torture.site import Site
from tests.torture.size import amount
from tests.torture.waiting import until_none
from tests.torture.writer import Writer

KILLS = amount("KILLS", quick=10, full=300)
KILLS_BY_DEFAULT = amount("KILLS_BY_DEFAULT", quick=3, full=30)  # with the lease of the product
QUICK_LEASE = 1.0  # seconds; most kills do not wait for the product's
SEED = amount("SEED", quick=1, full=1)
WRITERS = 8
SETTLE_EVERY = 10  # kills between looks at whether everything has ended
SETTLED_AFTER = 10.0  # seconds from a server's start, with all that it imports and opens


def test_whatever_is_killed_no_prompt_is_lost_and_every_response_is_right(
    new_site: Callable[..., Site], figures: Callable[[str], None]
) -> None:
    kill_and_check(new_site(lease=QUICK_LEASE, pause=0.01), KILLS, figures)


def test_the_same_holds_with_the_lease_of_the_product(
    new_site: Callable[..., Site], figures: Callable[[str], None]
) -> None:
    kill_and_check(new_site(lease=LEASE.total_seconds(), pause=0.01), KILLS_BY_DEFAULT, figures)


def kill_and_check(site: Site, total: int, figures: Callable[[str], None]) -> None:
    """Rounds of kills under writers, each with a look at all that was promised."""
    chance = random.Random(SEED)
    rounds = [min(SETTLE_EVERY, total - done) for done in range(0, total, SETTLE_EVERY)]
    slowest, asked = 0.0, 0

    for number, kills in enumerate(rounds):
        writers = [Writer(site, number * WRITERS + at, seed=SEED) for at in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(kills):
            kill_at_random(site, chance)
        slowest = max(slowest, restart_and_settle(site, writers))
        acknowledged = [one for writer in writers for one in writer.asked]
        asked += len(acknowledged)
        assert broken(acknowledged, site.store.rows()) == []
        site.end()

    assert site.store.damage() == []
    figures(
        f"{total} kills, {asked} prompts: 0 lost, 0 doubled, 0 wrong; "
        f"all ended {slowest:.1f} s after a start at the latest"
    )


def kill_at_random(site: Site, chance: random.Random) -> None:
    """One life of a server."""
    site.start()
    threading.Event().wait(chance.uniform(0, 2))
    site.end()


def restart_and_settle(site: Site, writers: list[Writer]) -> float:
    """Let the writers finish; seconds from the start until nothing was open.

    What counts is when the rows have their ends, those of the writers' last prompts included;
    the writers may still be about to read the last of it.
    """
    for writer in writers:
        writer.enough.set()
    site.start()
    left = site.started_at + SETTLED_AFTER - time.monotonic()
    complaint = f"left unfinished {SETTLED_AFTER:g} s after a start"
    until_none(lambda: open_at(site, writers), complaint, seconds=left)
    settled_after = time.monotonic() - site.started_at
    for writer in writers:
        writer.join(SETTLED_AFTER)
        assert not writer.is_alive(), f"still reading {writer.asked[-1]}\n{site.log}"
    assert unfinished(site.store.rows()) == []
    return settled_after


def open_at(site: Site, writers: list[Writer]) -> list[str]:
    """Responses without an end, and prompts that were not acknowledged yet."""
    waiting = [one.name for writer in writers for one in writer.asked if not one.acknowledged]
    return unfinished(site.store.rows()) + [f"{name} is not acknowledged" for name in waiting]

"""kill -9 at any moment: nothing acknowledged is lost, nothing is doubled, everything ends."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from tests.torture.promises import broken, unfinished
from tests.torture.site import Site
from tests.torture.size import amount
from tests.torture.writer import Writer
from tests.web import eventually

KILLS = amount("KILLS", quick=10, full=300)
SEED = amount("SEED", quick=1, full=1)
WRITERS = 8
SETTLE_EVERY = 10  # kills between looks at whether everything has ended
SETTLED_AFTER = 10.0  # seconds from a start to the end of all that was cut off


def test_whatever_is_killed_no_prompt_is_lost_and_every_response_is_right(
    new_site: Callable[..., Site], figures: Callable[[str], None]
) -> None:
    site = new_site(lease=1.0, pause=0.01)
    chance = random.Random(SEED)
    rounds = [min(SETTLE_EVERY, KILLS - done) for done in range(0, KILLS, SETTLE_EVERY)]
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
        f"{KILLS} kills, {asked} prompts: 0 lost, 0 doubled, 0 wrong; "
        f"all ended {slowest:.1f} s after a start at the latest"
    )


def kill_at_random(site: Site, chance: random.Random) -> None:
    """One life of a server."""
    site.start()
    threading.Event().wait(chance.uniform(0, 2))
    site.end()


def restart_and_settle(site: Site, writers: list[Writer]) -> float:
    """Let the writers finish; seconds from the start until nothing was open."""
    for writer in writers:
        writer.enough.set()
    site.start()
    eventually(lambda: not unfinished(site.store.rows()), seconds=SETTLED_AFTER)
    for writer in writers:
        writer.join(SETTLED_AFTER)
        assert not writer.is_alive(), f"{writer.asked[-1]}\n{site.log}"
    eventually(lambda: not unfinished(site.store.rows()), seconds=SETTLED_AFTER)
    return time.monotonic() - site.started_at

"""Long prompts are made into tokens one at a time, and short ones do not wait for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chat.limits.long_prompts import LONG, LongPrompts, long_prompts
from chat.limits.readers import TooManyStreams
from tests.chat.refusals import named
from tests.fakes import ScriptedEngine
from tests.web import eventually

MESSAGE = "/chat/new/message/"
LONG_ONE = {"prompt": "a" * LONG}


class Rendering(ScriptedEngine):
    """Counts how many long prompts are rendered at a time, and holds them until it is told."""

    def __init__(self) -> None:
        super().__init__("Hi", context_length=1 << 20)
        self.together, self.most = 0, 0
        self.held = threading.Event()

    def render(self, turns, **options):
        if len(turns[-1].content) < LONG:
            return super().render(turns, **options)
        self.together += 1
        self.most = max(self.most, self.together)
        assert self.held.wait(10)
        self.together -= 1
        return super().render(turns, **options)


@pytest.fixture
def engine(serve) -> Rendering:
    return serve(Rendering())


def test_one_is_rendered_at_a_time_and_a_short_one_meanwhile(api, engine):
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(api.post, MESSAGE, json=LONG_ONE) for _ in range(2)]
        eventually(lambda: long_prompts._waiting.total == 2)
        assert api.post(MESSAGE, json={"prompt": "a"}).status_code == 200
        engine.held.set()
        assert [answer.result().status_code for answer in asked] == [200] * 2

    assert engine.most == 1


def test_what_was_said_before_counts(api, engine):
    asked = {"prompt": "a", "history": [{"role": "user", "content": "a" * LONG}]}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(api.post, MESSAGE, json=LONG_ONE)
        eventually(lambda: engine.together)
        second = pool.submit(api.post, MESSAGE, json=asked)
        eventually(lambda: long_prompts._waiting.total == 2)
        engine.held.set()
        assert {first.result().status_code, second.result().status_code} == {200}


def test_as_many_wait_as_may_be_answered(api, engine, settings):
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 1
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.post, MESSAGE, json=LONG_ONE)
        eventually(lambda: engine.together)
        refused = api.post(MESSAGE, json=LONG_ONE)
        engine.held.set()
        assert first.result().status_code == 200

    assert (refused.status_code, named(refused)[0]) == (429, "too_many_streams")


def test_a_mistake_gives_the_turn_back(settings):
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 1
    prompts = LongPrompts()
    with pytest.raises(ValueError, match="no"), prompts.in_turn(LONG, "ada"):
        raise ValueError("no")
    with prompts.in_turn(LONG, "ada"), pytest.raises(TooManyStreams), prompts.in_turn(LONG, "ada"):
        pass
    with prompts.in_turn(LONG, "ada"):
        pass

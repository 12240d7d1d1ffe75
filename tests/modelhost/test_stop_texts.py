"""Stop texts: the one that is complete first ends an answer, however the text comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhost.text import ResponseDecoder, StopMatcher
from tests.modelhost.test_text import from_bytes, streamed


def first_stop(text, stops):
    """What is before the stop text that is complete first; of those, the one that began first."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@settings(deadline=None, max_examples=400)
@given(
    st.text("ab", max_size=14),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 5), min_size=1),
)
def test_the_first_stop_text_cuts_however_the_text_comes_in_pieces(text, stops, steps):
    matcher, out, position, at = StopMatcher(stops), "", 0, 0
    while position < len(text):
        out += matcher.feed(text[position : position + steps[at % len(steps)]])
        position += steps[at % len(steps)]
        at += 1
    if not matcher.matched:
        out += matcher.flush()

    assert out == first_stop(text, stops)
    assert matcher.matched == any(stop in text for stop in stops)


@pytest.mark.parametrize("size", range(1, 10))
def test_a_stop_text_is_found_over_any_number_of_pieces(size):
    text = "beforeSTOPHEREafter"
    matcher = StopMatcher(["STOPHERE"])

    out = [matcher.feed(text[at : at + size]) for at in range(0, len(text), size)]

    assert "".join(out) == "before"
    assert matcher.matched


def test_a_stop_text_may_be_the_very_first_text():
    decoder = ResponseDecoder(from_bytes, stops=["END"])

    assert streamed(decoder, b"ENDless") == [""] * 7
    assert decoder.stopped
    assert decoder.flush() == ""


def test_a_stop_text_may_be_the_very_last_text():
    decoder = ResponseDecoder(from_bytes, stops=["END"])

    assert "".join(streamed(decoder, b"the END")) + decoder.flush() == "the "
    assert decoder.stopped


def test_a_stop_text_that_overlaps_itself_is_found():
    decoder = ResponseDecoder(from_bytes, stops=["aab"])

    assert "".join(streamed(decoder, b"aaaab!")) == "aa"


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_of_stop_texts_within_each_other_the_one_complete_first_cuts(size):
    matcher = StopMatcher(["abcd", "bc"])

    out = [matcher.feed("xabcd"[at : at + size]) for at in range(0, 5, size)]

    assert "".join(out) == "xa"


def test_of_several_stop_texts_the_first_in_the_text_wins():
    decoder = ResponseDecoder(from_bytes, stops=["later", "soon"])

    assert "".join(streamed(decoder, b"as soon as later")) == "as "


def test_the_beginning_of_a_stop_text_waits_until_it_is_decided():
    decoder = ResponseDecoder(from_bytes, stops=["\n\nUser:"])

    assert decoder.feed(b"Hi.\n") == "Hi."
    assert decoder.feed(b"\nUs") == ""
    assert decoder.feed(b"ually") == "\n\nUsually"


def test_a_stop_text_that_only_began_is_text_after_all_at_the_end():
    decoder = ResponseDecoder(from_bytes, stops=["###"])

    assert decoder.feed(b"a ##") == "a "
    assert decoder.flush() == "##"
    assert not decoder.stopped


def test_nothing_comes_after_a_stop_text():
    decoder = ResponseDecoder(from_bytes, stops=["."])

    assert decoder.feed(b"One. Two. ") == "One"
    assert decoder.feed(b"Three") == ""
    assert decoder.flush() == ""


def test_a_stop_text_may_end_inside_a_cluster_of_emoji():
    decoder = ResponseDecoder(from_bytes, stops=["👩"])

    assert "".join(streamed(decoder, "ok 👩‍🔬".encode())) == "ok "

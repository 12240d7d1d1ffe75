"""Control tokens that are spelled in a text: all are found, quickly, also in disguise."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from modelhost.spellings import Spellings
from modelhost.template import TemplateFormat
from modelhost.types import ToolCall, Turn
from tests.modelhost.conftest import make_tokenizer

TEMPLATE = (
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}<|im_end|>{% endfor %}"
)


@given(st.lists(st.text("<ab>", max_size=4)), st.text("<ab>", max_size=30))
def test_every_place_where_one_begins_is_found(spellings, text):
    listed = [spelling for spelling in spellings if spelling]
    expected = [place for place in range(len(text)) if text.startswith(tuple(listed), place)]

    assert Spellings(spellings, str).places(text) == expected


def test_what_stands_for_itself_in_a_pattern_does():
    assert Spellings(["[a]", "a.c", "(|"], str).places("[a] abc a.c (|") == [0, 8, 12]


@pytest.mark.parametrize("text", ["<" * 200_000, "<unused1" * 25_000])
def test_thousands_of_them_cost_no_more_than_one(text):
    spellings = Spellings([f"<unused{number}>" for number in range(6400)], str)

    begun = time.thread_time()
    assert not spellings.are_in(text)
    assert time.thread_time() - begun < 1.0  # each by itself would be tried for ten seconds


@pytest.mark.parametrize(
    ("normalizer", "disguised"),
    [
        (normalizers.NFKC(), "＜result＞"),
        (normalizers.Lowercase(), "<RESULT>"),
        (normalizers.Replace("\u200b", ""), "<res\u200bult>"),
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_no_tool_or_argument_can_write_a_control_token_in_disguise(normalizer, disguised, special):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.backend_tokenizer.normalizer = normalizer
    token = AddedToken("<result>", special=special, normalized=True)
    tokenizer.add_tokens([token], special_tokens=special)
    control = tokenizer.convert_tokens_to_ids("<result>")
    assert control in tokenizer(disguised)["input_ids"]  # the tokenizer sees through it

    call = ToolCall(disguised, {disguised: [disguised]})
    turns = [Turn("user", disguised), Turn("assistant", "", tool_calls=(call,))]
    tool = {"name": "f", "description": disguised, "parameters": {disguised: disguised}}
    ids = TemplateFormat(tokenizer, stop_ids=frozenset()).encode(turns, [tool])

    assert control not in ids

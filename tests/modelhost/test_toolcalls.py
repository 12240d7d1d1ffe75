"""Reading calls out of answers: as data, whole, and without evaluating anything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhost.toolcalls import (
    ChatGLMAnswer,
    TaggedAnswer,
    parse_python_call,
    write_python_call,
)
from modelhost.types import ToolCall

WEATHER = ToolCall("get_current_weather", {"location": "beijing"})
CHATGLM_CALL = "get_current_weather\n ```python\ntool_call(location='beijing')\n```"
TAGGED_CALL = """<tool_call>
{"name": "get_current_weather", "arguments": {"location": "beijing"}}
</tool_call>"""


def read(answer, pieces):
    visible = [answer.feed(piece) for piece in pieces]
    rest, calls = answer.finish()
    return "".join(visible) + rest, calls


def pieces_of(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_chatglm_names_the_tool_on_the_first_line(size):
    answer = ChatGLMAnswer(["get_current_weather", "get_time"])

    assert read(answer, pieces_of(CHATGLM_CALL, size)) == ("", (WEATHER,))


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_plain_text_goes_through_without_its_blank_line(size):
    answer = ChatGLMAnswer(["get_current_weather"])

    assert read(answer, pieces_of("\n Hello\nthere", size)) == ("Hello\nthere", ())


def test_text_is_held_back_only_while_it_may_be_a_tools_name():
    answer = ChatGLMAnswer(["get_current_weather"])

    assert [answer.feed(piece) for piece in ["get", "_time", " is"]] == ["", "get_time", " is"]


def test_an_answer_that_is_only_a_tools_name_is_text():
    assert read(ChatGLMAnswer(["get_time"]), ["get_", "time"]) == ("get_time", ())


def test_a_call_that_cannot_be_read_is_shown_as_it_was_written():
    answer = ChatGLMAnswer(["get_time"])

    text, calls = read(answer, ["get_time\n", "I would call it."])

    assert (text, calls) == ("get_time\nI would call it.", ())


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tagged_calls_are_taken_out_of_the_text(size):
    text = f"Let me look. {TAGGED_CALL}{TAGGED_CALL} <tool"

    assert read(TaggedAnswer(), pieces_of(text, size)) == (
        "Let me look.  <tool",
        (WEATHER, WEATHER),
    )


def test_an_unreadable_tagged_call_is_shown():
    text = "<tool_call>nonsense</tool_call>"

    assert read(TaggedAnswer(), [text]) == (text, ())


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("written", ["", '{"name": "get_cur', '{"name": "f", "arguments"}</tool_'])
def test_a_tagged_call_that_was_cut_is_shown_as_far_as_it_was_written(written, size):
    text = f"Let me look. <tool_call>{written}"

    assert read(TaggedAnswer(), pieces_of(text, size)) == (text, ())


def test_a_tagged_call_that_lacks_nothing_but_its_end_is_one():
    assert read(TaggedAnswer(), [TAGGED_CALL.removesuffix("</tool_call>")]) == ("", (WEATHER,))


HOSTILE = [
    "__import__('os').system('touch /tmp/owned')",
    "tool_call(a=__import__('os'))",
    "tool_call(a=open('/etc/passwd').read())",
    "tool_call(*[1])",
    "tool_call(**{'a': 1})",
    "tool_call('positional')",
    "tool_call(a=b'bytes')",
    "tool_call(a={1, 2})",
    "tool_call(a=1e999)",
    f"tool_call(a={10**400}+1j)",
    "tool_call(a=" + "[" * 5000 + "]" * 5000 + ")",
    "tool_call(a=",
    "",
    "1 + 1",
]


@pytest.mark.parametrize("code", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_literal_is_no_call(code):
    assert parse_python_call("x", f"```python\n{code}\n```") is None


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
# What a caller may send: half of a surrogate pair and NUL are refused.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=["\0"]), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["city", "北京", "n", "unit_"]), JSON, max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_is_written_for_a_call_reads_back_as_it(arguments):
    call = ToolCall("f", arguments)

    assert parse_python_call("f", write_python_call(call)) == call


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "1e999", r'"\ud800"', r'"a\u0000b"', r'["\udc00"]', r'{"\u0000": 1}'],
)
def test_a_call_that_not_everybody_can_store_is_shown_as_it_was_written(value):
    text = f'<tool_call>{{"name": "f", "arguments": {{"x": {value}}}}}</tool_call>'

    assert read(TaggedAnswer(), [text]) == (text, ())


@pytest.mark.parametrize("value", [r"'\ud800'", r"'\x00'", "1e999", "b'x'", "{1, 2}"])
def test_nor_is_it_a_call_in_chatglms_form(value):
    text = f"get_time\n```python\ntool_call(x={value})\n```"

    assert read(ChatGLMAnswer(["get_time"]), [text]) == (text, ())


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("{1: 2, 'b': 3}", {"1": 2, "b": 3}),
        ("{None: {True: (1, (2,))}}", {"null": {"true": [1, [2]]}}),
    ],
)
def test_what_only_python_can_write_is_read_as_json_has_it(written, read_as):
    assert parse_python_call("f", f"tool_call(x={written})") == ToolCall("f", {"x": read_as})


@pytest.mark.parametrize(("levels", "calls"), [(80, 1), (120, 0)])
def test_a_call_is_nested_only_so_deeply(levels, calls):
    value = "[" * levels + "]" * levels
    tagged = f'<tool_call>{{"name": "f", "arguments": {{"x": {value}}}}}</tool_call>'
    fenced = f"get_time\n```python\ntool_call(x={value})\n```"

    for answer, text in ((TaggedAnswer(), tagged), (ChatGLMAnswer(["get_time"]), fenced)):
        shown, called = read(answer, [text])
        assert len(called) == calls
        assert shown == ("" if calls else text)


def test_what_only_looks_like_a_nul_is_kept():
    text = (
        r'<tool_call>{"name": "f", "arguments": {"x": "\\u0000", "y": "\ud83d\ude00"}}</tool_call>'
    )

    call = ToolCall("f", {"x": r"\u0000", "y": "\U0001f600"})
    assert read(TaggedAnswer(), [text]) == ("", (call,))

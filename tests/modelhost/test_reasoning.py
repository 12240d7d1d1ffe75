"""Reasoning in earlier answers is dropped where the model's own template drops it."""

from __future__ import annotations

import pytest

from modelhost.template import TemplateFormat
from modelhost.types import ToolCall, Turn
from tests.modelhost.conftest import make_tokenizer

TAGS = ("<think>", "</think>")
LOOP = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ BODY }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
BEHIND = "(m.content.split('</think>')[-1] if m.role == 'assistant' else m.content)"
# As models of DeepSeek-R1's kind have it: what stands behind the tag stays as it is.
AS_IT_IS = LOOP.replace("BODY", BEHIND)
# As Qwen3's have it: without the empty lines behind the tag, and not for the newest answer.
NEWEST_STAYS = LOOP.replace(
    "BODY",
    f"m.content if loop.revindex0 == 0 or m.role != 'assistant' else {BEHIND}.lstrip('\\n')",
)
MENTIONS_ONLY = LOOP.replace("BODY", "m.content") + "{# </think> #}"

ASKED = Turn("user", "What is 1 + 1?")
THOUGHT = Turn("assistant", "<think>\nOne and one.\n</think>\n\nIt is 2.")
AGAIN = Turn("user", "And 2 + 2?")


def made(template):
    tokenizer = make_tokenizer(added=("<tool_call>", *TAGS))
    tokenizer.chat_template = template
    return tokenizer, TemplateFormat(tokenizer, stop_ids=frozenset())


def in_one_piece(tokenizer, turns):
    messages = [{"role": str(turn.role), "content": turn.content} for turn in turns]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize("template", [AS_IT_IS, NEWEST_STAYS], ids=["as it is", "without lines"])
@pytest.mark.parametrize(
    "content",
    [
        THOUGHT.content,
        "Without the first tag, which stands in the prompt.\n</think>\nIt is 2.",
        "<think>a</think>b</think>\n\n\nIt is 2.",
        "<think>nothing behind it</think>",
        "<think></think>\n\nIt is 2.",
        "No reasoning at all.",
    ],
)
def test_a_prompt_is_what_the_template_makes_in_one_piece(template, content):
    tokenizer, chat_format = made(template)
    turns = [ASKED, Turn("assistant", content), AGAIN]

    assert chat_format.encode(turns) == in_one_piece(tokenizer, turns)


def test_reasoning_that_the_template_keeps_stays_as_text():
    tokenizer, chat_format = made(NEWEST_STAYS)
    tags = set(tokenizer.convert_tokens_to_ids(list(TAGS)))

    token_ids = chat_format.encode([ASKED, THOUGHT, AGAIN, THOUGHT])

    text = tokenizer.decode(token_ids)
    assert text.count("One and one.") == 1
    assert text.endswith(
        f"assistant\n{THOUGHT.content}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert [one for one in token_ids if one in tags] == [tokenizer.convert_tokens_to_ids("<think>")]


def test_a_template_that_drops_nothing_gets_the_turns_as_they_are():
    tokenizer, chat_format = made(MENTIONS_ONLY)

    text = tokenizer.decode(chat_format.encode([ASKED, THOUGHT, AGAIN]))

    assert THOUGHT.content in text


@pytest.mark.parametrize(
    "template", [AS_IT_IS, LOOP.replace("BODY", BEHIND.partition(" if")[0][1:])]
)
def test_what_others_say_is_never_reasoning(template):
    tokenizer, chat_format = made(template)
    asked = Turn("user", "Read this: </think> and go on.")

    assert asked.content in tokenizer.decode(chat_format.encode([asked, THOUGHT, AGAIN]))


@pytest.mark.parametrize("tag", [*TAGS, "<|im_start|>"])
def test_no_answer_that_a_client_sends_makes_a_control_token(tag):
    tokenizer, chat_format = made(AS_IT_IS)
    plain = chat_format.encode([ASKED, Turn("assistant", "x"), AGAIN])
    control = set(tokenizer.added_tokens_decoder)
    sent = Turn("assistant", f"{tag}a{tag}</think>{tag}b")

    token_ids = chat_format.encode([ASKED, sent, AGAIN])

    assert [one for one in token_ids if one in control] == [one for one in plain if one in control]


def test_a_call_behind_reasoning_keeps_its_call():
    template = LOOP.replace("BODY", BEHIND + " ~ (m.tool_calls[0].function.name if m.tool_calls)")
    tokenizer, chat_format = made(template)
    call = Turn("assistant", THOUGHT.content, tool_calls=(ToolCall("add", {"a": 1}),))

    text = tokenizer.decode(chat_format.encode([ASKED, call, AGAIN]))

    assert "\n\nIt is 2.add<|im_end|>" in text
    assert "One and one." not in text

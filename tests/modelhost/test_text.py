"""Incremental decoding, on a tokenizer whose ids are bytes and on others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from modelhost.checkpoints import locate
from modelhost.progress import Progress
from modelhost.text import (
    MOST_WAITING,
    REPLACEMENT,
    IncrementalDetokenizer,
    ResponseDecoder,
)
from modelhost.types import ModelSpec
from tests.modelhost.conftest import make_tokenizer

SCRIPTS = [
    "plain ascii, with  two spaces",
    "你好，我是人工智能助手。很高兴见到你！",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 thumb",
    "e\N{COMBINING ACUTE ACCENT}a\N{COMBINING DIAERESIS}\N{COMBINING MACRON} combining",
    "नमस्ते दुनिया, क्षत्रिय",
    "שלום עולם \N{RIGHT-TO-LEFT MARK}مرحبا بالعالم",
    "lines\n\n\r\n\tindented\u2028separated\u0085next",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 \U0010fffd last plane",
    "inside \N{REPLACEMENT CHARACTER} is meant",
]


def from_bytes(token_ids):
    return bytes(token_ids).decode("utf-8", errors="replace")


def streamed(decoder, token_ids):
    return [decoder.feed([token_id]) for token_id in token_ids]


@pytest.mark.parametrize("text", SCRIPTS)
def test_streaming_gives_the_text_of_decoding_at_once(text):
    decoder = ResponseDecoder(from_bytes)

    deltas = streamed(decoder, text.encode())

    assert "".join(deltas) + decoder.flush() == text


@pytest.mark.parametrize("text", SCRIPTS)
def test_cut_at_any_byte_only_the_unfinished_character_is_dropped(text):
    data = text.encode()
    for cut in range(len(data) + 1):
        whole = data[:cut].decode("utf-8", errors="ignore")
        decoder = ResponseDecoder(from_bytes)

        out = "".join(streamed(decoder, data[:cut])) + decoder.flush()

        # A replacement character that is meant cannot be told from an unfinished one at the end.
        assert out == whole.rstrip(REPLACEMENT)


@settings(deadline=None, max_examples=150)
@given(st.text().filter(lambda text: REPLACEMENT not in text and "\0" not in text))
def test_no_delta_of_valid_text_holds_a_replacement_character(text):
    deltas = streamed(ResponseDecoder(from_bytes), text.encode())

    assert not any(REPLACEMENT in delta for delta in deltas)
    assert "".join(deltas) == text


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.lists(st.integers(1, 4), min_size=1))
def test_broken_bytes_come_out_as_when_decoded_at_once_however_they_arrive(data, steps):
    decoder, out, position, at = IncrementalDetokenizer(from_bytes), "", 0, 0
    while position < len(data):
        out += decoder.feed(data[position : position + steps[at % len(steps)]])
        position += steps[at % len(steps)]
        at += 1

    assert out == from_bytes(data).rstrip(REPLACEMENT)


def test_a_space_that_a_tokenizer_drops_at_the_start_of_a_text_is_kept_within():
    words = ["▁Paris", "▁is", "▁", "▁the", "capital", "▁."]

    def sentencepiece(token_ids):
        return "".join(words[token_id] for token_id in token_ids).replace("▁", " ")[1:]

    decoder = IncrementalDetokenizer(sentencepiece)

    assert "".join(streamed(decoder, range(len(words)))) == sentencepiece(range(len(words)))


def test_each_step_decodes_a_short_window_only():
    lengths = []

    def decode(token_ids):
        lengths.append(len(token_ids))
        return from_bytes(token_ids)

    streamed(IncrementalDetokenizer(decode), ("語" * 500).encode())

    assert max(lengths) <= 8


@pytest.mark.parametrize(
    "run",
    [b"\xff", b"\xe4\xbd", b" \xe2", "\N{REPLACEMENT CHARACTER}".encode(), b"\x01"],
    ids=["broken", "unfinished", "begun after a space", "meant", "control tokens"],
)
def test_a_run_that_never_ends_cleanly_costs_no_more_with_its_length(run):
    lengths = []

    def decode(token_ids):
        lengths.append(len(token_ids))
        return from_bytes(one for one in token_ids if one != 1)

    data = b"a" + run * 2000 + b"."
    out = "".join(streamed(IncrementalDetokenizer(decode), data))

    assert max(lengths) <= 2 * MOST_WAITING
    assert out == decode(data)


def byte_fallback():
    """Ids as Llama's: a run of bytes is characters as a whole, or none of it is."""
    pieces = ["<unk>", *(f"<0x{one:02X}>" for one in range(256)), "\u2581", "\u2581the", "a", "你"]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=[])
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


TOKENIZERS = {"byte level": make_tokenizer().backend_tokenizer, "byte fallback": byte_fallback()}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_the_window_s_middle_says_nothing_about_the_text(tokenizer, data):
    some = st.lists(st.integers(3, tokenizer.get_vocab_size() - 1), min_size=1, max_size=5)
    runs = data.draw(st.lists(st.tuples(some, st.sampled_from([1, 2, 20, 80])), max_size=5))
    token_ids = [one for ids, times in runs for one in ids * times]
    end = tokenizer.encode("a").ids  # what waits at the end of an answer is another question
    decoder = IncrementalDetokenizer(tokenizer.decode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelhost.text.MOST_WAITING", 10_000)
        whole = IncrementalDetokenizer(tokenizer.decode)
        expected = "".join(streamed(whole, [*token_ids, *end]))

    assert "".join(streamed(decoder, [*token_ids, *end])) == expected


def test_an_answer_of_replacement_characters_that_are_meant_comes_and_is_kept():
    data = ("\N{REPLACEMENT CHARACTER}" * 500).encode()

    out = "".join(streamed(IncrementalDetokenizer(from_bytes), data))

    assert out == REPLACEMENT * len(out)
    assert len(out) > 450


def test_a_nul_never_comes_out():
    decoder = ResponseDecoder(from_bytes)

    assert "".join(streamed(decoder, b"a\0\0b\0")) + decoder.flush() == "ab"


def test_tokens_without_text_change_nothing():
    decoder = ResponseDecoder(lambda token_ids: from_bytes([one for one in token_ids if one]))

    deltas = [decoder.feed(ids) for ids in ([], [0], b"a", [0, 0], b"b", [0])]

    assert deltas == ["", "", "a", "", "b", ""]


@pytest.mark.model
def test_the_demo_tokenizer_streams_every_script_as_it_decodes_it():
    chat_format = locate(ModelSpec(), Progress()).chat_format()
    for text in SCRIPTS[:-1]:
        token_ids = chat_format.content_ids(text)
        for cut in range(len(token_ids) + 1):
            decoder = ResponseDecoder(chat_format.decode)
            out = "".join(streamed(decoder, token_ids[:cut])) + decoder.flush()
            assert out == chat_format.decode(token_ids[:cut]).rstrip(REPLACEMENT)
        assert out == text

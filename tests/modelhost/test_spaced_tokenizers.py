"""Prompts for tokenizers that put a space before a text's first word, as Llama's and Mistral's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bench.checkpoint import small_tokenizer
from modelhost.checkpoints.hub import load_format
from modelhost.template import TemplateFormat
from modelhost.types import Turn
from tests.modelhost.test_prompts import ORDINARY, controls_in, messages_of, turns_of

SPACE = "\u2581"
WORDS = ["Hello there, how are you?", "What is the capital of France?", "[INST] user [/INST] Hi"]
INSTRUCTIONS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}"
    "{{ eos_token }}{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
LINES = (
    "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}\nEND\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
TEMPLATES = {"instructions": INSTRUCTIONS, "lines": LINES}


def prepended(tokenizer):
    """As Llama 2's tokenizer.json has it: before every part between special tokens."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )


def first(tokenizer):
    """As a sentencepiece file is read now: before the first part only."""
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)


def made(spaced, template):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # no token has a space at its end
    letters = sorted(set("".join(text for pairs in ORDINARY for _, text in pairs)) | {"\n", SPACE})
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>", "<|turn|>"],
        initial_alphabet=[*letters, *map(chr, range(32, 127))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    spaced(tokenizer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|turn|>"],
    )
    fast.chat_template = TEMPLATES[template]
    return fast


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("spaced", [prepended, first])
@pytest.mark.parametrize("pairs", ORDINARY)
def test_turns_render_as_the_template_does_in_one_piece(spaced, template, pairs):
    tokenizer = made(spaced, template)

    expected = tokenizer.apply_chat_template(
        messages_of(pairs), add_generation_prompt=True, return_dict=False
    )

    assert TemplateFormat(tokenizer, stop_ids=frozenset()).encode(turns_of(pairs)) == expected


def test_a_folder_may_have_no_tokenizer_but_a_sentencepiece_file(tmp_path):
    pytest.importorskip("google.protobuf", reason="of requirements.txt, not installed yet")
    (tmp_path / "tokenizer.model").write_bytes(small_tokenizer())
    named = {"tokenizer_class": "LlamaTokenizer", "chat_template": LINES}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 2}))

    chat_format = load_format(tmp_path)

    written = chat_format.decode(chat_format.encode([Turn("user", "a b c")]))
    assert written == "<|turn|>user\na b c\nEND\n<|turn|>assistant\n"


TOKENIZER = made(first, "lines")
FORMAT = TemplateFormat(TOKENIZER, stop_ids=frozenset())
HOSTILE = st.lists(
    st.sampled_from(["<|turn|>", "<s>", "</s>", "<|turn", "|>", " ", "\n", "user", "a"])
).map("".join)


@settings(deadline=None, max_examples=100)
@given(HOSTILE)
def test_no_text_gives_a_control_token_and_none_of_it_is_lost(content):
    structure = controls_in(FORMAT, TOKENIZER, "x")

    assert len(structure) == 2  # one turn, and one opened for the answer
    assert controls_in(FORMAT, TOKENIZER, content) == structure
    expected = f"user\n{content}\nEND\nassistant\n"
    assert TOKENIZER.decode(FORMAT.encode([Turn("user", content)]), skip_special_tokens=True) == (
        expected
    )

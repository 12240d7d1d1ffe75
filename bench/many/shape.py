"""ChatGLM3-6B's shape with random weights that say something definite.

    python -m bench.many.shape FOLDER [--layers 28] [--tokenizer FOLDER]

For machines with a card and no checkpoint. Every layer does its full work, but adds so little to
what a token brings along that the next token is decided by the last one: the output layer says,
for each word of a list, the word behind it. So servers that round differently still give equal
answers, and can be compared. As transformers' own GLM, which every server loads; in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GlmConfig, GlmForCausalLM

from bench.checkpoint import Shape

QUIET = 0.002  # of the layers' weights; an embedding's numbers have a standard deviation of 1
TEMPLATE_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip


def main() -> None:
    """Write the folder."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("folder", type=Path)
    made.add_argument("--layers", type=int, default=28)
    made.add_argument("--tokenizer", type=Path, help="a folder; default: the demo model's")
    options = made.parse_args()
    write(options.folder, options.tokenizer or demo_folder(), Shape(layers=options.layers))


def demo_folder() -> Path:
    """The converted demo model, for its tokenizer."""
    from bench.many.model import folder  # brings the conversion: only when needed

    return folder("demo")


def write(folder: Path, tokenizer: Path, shape: Shape) -> None:
    """A model folder as `save_pretrained` makes it, with that tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TEMPLATE_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    stop = json.loads((tokenizer / "config.json").read_text())["eos_token_id"]
    model = outline(shape, stop)
    fill(model, plain_words(vocabulary), opening=vocabulary.encode("\n").ids[-1])
    model.save_pretrained(folder, max_shard_size="2GB")


def outline(shape: Shape, stop: int) -> GlmForCausalLM:
    """The network on the card if there is one, its weights not set."""
    config = GlmConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        head_dim=shape.dim,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.context,
        attention_bias=True,
        eos_token_id=stop,
        pad_token_id=stop,
        dtype="bfloat16",
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        return GlmForCausalLM._from_config(config, dtype=torch.bfloat16)


@torch.no_grad()
def fill(model: GlmForCausalLM, words: list[int], *, opening: int) -> None:
    """Quiet layers, and an output layer that knows which word is behind which.

    opening: the template's last token, before every answer; the first word follows it.
    """
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.fill_(1)
        elif "embed" in name:
            weight.normal_()
        else:
            weight.normal_(std=QUIET)
    every = torch.tensor(words, device=model.device)
    brought = model.model.embed_tokens.weight
    rows = model.lm_head.weight
    rows.zero_()
    rows[every.roll(-1)] = brought[every]
    rows[every[0]] += brought[opening]


def plain_words(tokenizer: Tokenizer) -> list[int]:
    """Ids of words with a space before them, shuffled: one behind the other they stay one token."""
    found = [
        token_id
        for token, token_id in tokenizer.get_vocab().items()
        if token.startswith("Ġ") and token[1:].isascii() and token[1:].isalpha()
    ]
    random.Random(1).shuffle(found)
    return found


if __name__ == "__main__":
    main()

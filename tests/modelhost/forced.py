"""Models that say word for word what a test wants, without training.

A random network is run on the prompt and the wanted answer; then an output layer is solved
for, by least squares, under which each wanted id is the likeliest where it is due. It is
exact while the hidden size is not below the number of wanted ids. Everything else (network,
cache, batching, tokenizer) stays as it is, so only that very prompt gets that very answer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from modelhost import checkpoints
from modelhost.checkpoints import Loaded, Placement
from modelhost.checkpoints.hub import load_format
from modelhost.progress import Progress
from modelhost.template import TemplateFormat
from modelhost.types import ModelSpec
from tests.modelhost.conftest import make_tokenizer

SHARED = Path(__file__).resolve().parents[3] / "shared" / "chatglm3"
TINY = SHARED / "chatglm3-tiny"
OUTPUT_LAYER = "transformer.output_layer.weight"
MARGIN = 10.0  # of a wanted id's logit over every other one: more than fp16 rounds away

Said = tuple[Sequence[int], Sequence[int]]  # a prompt and its answer, as ids


def output_layer(model: Any, said: Sequence[Said]) -> torch.Tensor:
    """The output layer under which the model answers each prompt with its answer."""
    with torch.no_grad():
        states = torch.cat([_states(model, prompt, answer) for prompt, answer in said])
    wanted = torch.tensor([token_id for _, answer in said for token_id in answer])
    assert len(wanted) <= states.shape[1], "more ids than the hidden size can tell apart"
    ids, column = wanted.unique(return_inverse=True)
    targets = torch.zeros(len(wanted), len(ids), dtype=torch.float64)
    targets[torch.arange(len(wanted)), column] = MARGIN
    weight = torch.zeros(model.config.vocab_size, states.shape[1])
    weight[ids] = (torch.linalg.pinv(states.double()) @ targets).T.float()
    return weight


def _states(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """What the output layer sees before each id of the answer."""
    seen = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
    return model.model(seen).last_hidden_state[0, len(prompt) - 1 :].float()


# ChatGLM3, in its published layout


def chatglm_that_says(folder: Path, said: Sequence[Said]) -> Path:
    """A copy of the reference checkpoint with another output layer in its shard."""
    shutil.copytree(TINY, folder, copy_function=shutil.copyfile)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shard = folder / index[OUTPUT_LAYER]
    tensors = load_file(shard)
    tensors[OUTPUT_LAYER] = output_layer(_in_memory(TINY).model, said).half()
    save_file(tensors, shard, metadata={"format": "pt"})
    return folder


def _in_memory(folder: Path) -> Loaded:
    spec = ModelSpec(model=str(folder), device="cpu")
    where = Placement(torch.device("cpu"), torch.float32)
    return checkpoints.locate(spec, Progress()).load(where, Progress())


# A model of the hub, with a template that has tools as Hermes and Qwen write them

TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call functions:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
Write a call as <tool_call>{"name": …, "arguments": …}</tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TAGS = ("<tool_call>", "</tool_call>")


class HubModel:
    """A small random Llama whose answers are still to be chosen.

    tags: whether the tags are tokens of their own, as Qwen has them; else they are plain text.
    """

    def __init__(self, folder: Path, *, tags: bool) -> None:
        self.folder = folder
        self.tokenizer = tool_tokenizer(tags=tags)
        self._model = _wide_llama(self.tokenizer)
        self._save()
        self.format: TemplateFormat = load_format(folder)

    def answer_ids(self, text: str) -> list[int]:
        """An answer as the model itself would write it: tags as tokens, and its end."""
        return [*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id]

    def says(self, said: Sequence[Said]) -> None:
        """Choose the answers."""
        self._model.lm_head.weight.data = output_layer(self._model, said)
        self._save()

    def _save(self) -> None:
        transformers_logging.disable_progress_bar()
        self._model.save_pretrained(self.folder)
        transformers_logging.enable_progress_bar()
        self.tokenizer.save_pretrained(self.folder)


def tool_tokenizer(*, tags: bool) -> PreTrainedTokenizerFast:
    """Byte-level, with the template above; Qwen's tags are added tokens that are not special."""
    tokenizer = make_tokenizer(TAGS if tags else ())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _wide_llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.1,
        tie_word_embeddings=False,
        bos_token_id=None,
        pad_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config).eval()

"""A checkpoint in ChatGLM's published layout with random weights, of any size."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network; the defaults are ChatGLM3-6B's."""

    layers: int = 28
    hidden: int = 4096
    heads: int = 32
    groups: int = 2
    dim: int = 128
    inner: int = 13696
    vocabulary: int = 65024
    context: int = 8192


def write_checkpoint(folder: Path, shape: Shape, *, pickled: bool = False) -> None:
    """One shard for each layer, so that building takes little memory; fp16, as published.

    pickled: as `.bin` files, like the first releases.
    """
    (folder / "tokenizer.model").write_bytes(small_tokenizer())
    (folder / "config.json").write_text(json.dumps(published_config(shape)))
    layout = "pytorch_model.bin" if pickled else "model.safetensors"
    stem, _, ending = layout.partition(".")
    index: dict[str, str] = {}
    for number, tensors in enumerate(shards(shape)):
        file = f"{stem}-{number:05d}.{ending}"
        if pickled:
            torch.save(tensors, folder / file)
        else:
            save_file(tensors, folder / file)
        index |= dict.fromkeys(tensors, file)
    (folder / f"{layout}.index.json").write_text(json.dumps({"weight_map": index}))


def shards(shape: Shape) -> Iterator[Tensors]:
    """The published names."""
    yield {"transformer.embedding.word_embeddings.weight": weights(shape.vocabulary, shape.hidden)}
    for layer in range(shape.layers):
        yield layer_of(shape, f"transformer.encoder.layers.{layer}.")
    yield {
        "transformer.encoder.final_layernorm.weight": ones(shape.hidden),
        "transformer.output_layer.weight": weights(shape.vocabulary, shape.hidden),
    }


def layer_of(shape: Shape, base: str) -> Tensors:
    """One layer."""
    rows = (shape.heads + 2 * shape.groups) * shape.dim
    return {
        f"{base}input_layernorm.weight": ones(shape.hidden),
        f"{base}post_attention_layernorm.weight": ones(shape.hidden),
        f"{base}self_attention.query_key_value.weight": weights(rows, shape.hidden),
        f"{base}self_attention.query_key_value.bias": weights(rows),
        f"{base}self_attention.dense.weight": weights(shape.hidden, shape.heads * shape.dim),
        f"{base}mlp.dense_h_to_4h.weight": weights(2 * shape.inner, shape.hidden),
        f"{base}mlp.dense_4h_to_h.weight": weights(shape.hidden, shape.inner),
    }


def weights(*size: int) -> torch.Tensor:
    """Small random fp16 numbers; their values do not matter for speed or memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where billions of them take seconds
    return torch.empty(size, dtype=torch.float16, device=device).uniform_(-0.02, 0.02).cpu()


def ones(size: int) -> torch.Tensor:
    """A norm's weights."""
    return torch.ones(size, dtype=torch.float16)


def published_config(shape: Shape) -> dict[str, object]:
    """The fields of ChatGLM3-6B's config.json that loading reads."""
    return {
        "model_type": "chatglm",
        "padded_vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "ffn_hidden_size": shape.inner,
        "multi_query_attention": True,
        "multi_query_group_num": shape.groups,
        "kv_channels": shape.dim,
        "layernorm_epsilon": 1e-5,
        "seq_length": shape.context,
        "add_qkv_bias": True,
    }


def small_tokenizer() -> bytes:
    """A sentencepiece model made on the spot; prompts here are ids, so its words do not matter."""
    out = io.BytesIO()
    sentences = iter(["a b c d e f g h i j k l m n o p q r s t u v w x y z"] * 10)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences,
        model_writer=out,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()

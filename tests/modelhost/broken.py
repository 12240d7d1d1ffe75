"""Ways to break a folder of ChatGLM3, and the file that the refusal must name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Break = Callable[[Path], object]

INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"


def change_config(folder: Path, **values: Any) -> None:
    """Other values in config.json; None removes a field."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def pickle_shards(folder: Path) -> None:
    """The same weights in the layout of the first releases."""
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    index = {}
    for at, shard in enumerate(sorted(set(weight_map.values())), start=1):
        file = f"pytorch_model-0000{at}-of-00003.bin"
        torch.save(load_file(folder / shard), folder / file)
        index |= {name: file for name, where in weight_map.items() if where == shard}
        (folder / shard).unlink()
    (folder / INDEX).unlink()
    (folder / PICKLED_INDEX).write_text(json.dumps({"weight_map": index}))


def remove(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str) -> Break:
    return lambda folder: (folder / name).write_text(content)


def config(**values: Any) -> Break:
    return lambda folder: change_config(folder, **values)


def cut(name: str) -> Break:
    """A download that stopped."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:100_000])


def drop_a_tensor(folder: Path) -> None:
    file = folder / "model-00002-of-00003.safetensors"
    tensors = load_file(file)
    tensors.pop("transformer.encoder.final_layernorm.weight")
    save_file(tensors, file)


def cut_pickled(folder: Path) -> None:
    pickle_shards(folder)
    cut("pytorch_model-00003-of-00003.bin")(folder)


def pickle_a_list(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    torch.save([torch.ones(1)], folder / "pytorch_model.bin")


BROKEN = {
    "missing shard": (remove("model-00002-of-00003.safetensors"), "model-00002-of-00003"),
    "truncated shard": (cut("model-00001-of-00003.safetensors"), "model-00001-of-00003"),
    "empty shard": (write("model-00001-of-00003.safetensors", ""), "model-00001-of-00003"),
    "truncated pickled shard": (cut_pickled, "pytorch_model-00003-of-00003.bin"),
    "a pickled list": (pickle_a_list, "pytorch_model.bin"),
    "wrong shape": (config(ffn_hidden_size=90), "mlp"),
    "wrong heads": (config(multi_query_group_num=1), "q_proj|k_proj|v_proj"),
    "no tokenizer": (remove("tokenizer.model"), "tokenizer.model"),
    "broken tokenizer": (write("tokenizer.model", "x"), "tokenizer.model"),
    "a field less": (config(kv_channels=None), "config.json lacks the field 'kv_channels'"),
    "a field wrong": (config(num_layers="two"), "config.json"),
    "angles that are no numbers": (config(rope_ratio=float("nan")), "rope_ratio is nan"),
    "angles that do not turn": (config(rope_ratio=0), "rope_ratio is 0"),
    "angles of a root that is none": (config(rope_ratio=-1), "rope_ratio is -1"),
    "angles without end": (config(rope_ratio=float("inf")), "rope_ratio is inf"),
    "no network": (config(num_attention_heads=0), "config.json"),
    "a number without end": (config(hidden_size=float("inf")), "config.json"),
    "a number beyond all": (config(hidden_size=10**30), "config.json"),
    "no vocabulary": (config(padded_vocab_size=0), "config.json"),
    "config without end": (write("config.json", "[" * 100_000), "config.json"),
    "index without end": (write(INDEX, "[" * 100_000), "index.json"),
    "config cut short": (write("config.json", '{"model_type": "chatglm"'), "config.json"),
    "a tensor less": (drop_a_tensor, "model.norm"),
    "more layers": (config(num_layers=3), "layers.2"),
    "fewer layers": (config(num_layers=1), "layers.1"),
    "broken index": (write(INDEX, "{"), INDEX),
    "an index of numbers": (write(INDEX, '{"weight_map": {"a": 5}}'), INDEX),
    "an index that leaves the folder": (write(INDEX, '{"weight_map": {"a": "../a"}}'), INDEX),
    "an index of nothing": (write(INDEX, '{"weight_map": {}}'), INDEX),
    "an index of names that no disk has": (
        write(INDEX, json.dumps({"weight_map": {"a": "x" * 5000}})),
        f"{INDEX} is not usable: its weight_map",
    ),
    "no room for a token": (config(seq_length=0), "config.json says that a context has 0 tokens"),
    "layers without end": (config(num_layers=10**9), "config.json says num_layers: 1000000000"),
    "layers without end, as a text": (config(num_layers="9" * 9), "config.json says num_layers"),
}

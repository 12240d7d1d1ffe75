"""ChatGLM3-6B's true shape with random weights, through the real loader and engine.

    python -m bench.chatglm [--layers 28] [--device cuda] [--dtype bf16] [--quantize int8]

Writes a checkpoint in the published layout into a temporary folder (12.5 GB in fp16 at 28
layers), loads it as any other, and prints load time, memory and tokens/s at batch 1, 8, 32
and 128 beside the memory-bandwidth limit: every step reads every weight once, so a batch of
one makes at most bandwidth / bytes-of-weights tokens per second.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

from modelhost.engine import Engine
from modelhost.loading import load
from modelhost.progress import Progress
from modelhost.types import ModelSpec, Sampling

HIDDEN, HEADS, GROUPS, DIM, INNER, VOCABULARY = 4096, 32, 2, 128, 13696, 65024
BATCHES = (1, 8, 32, 128)
TOKENS = 64


def main() -> None:
    """Build, load, measure, print."""
    options = parser().parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_checkpoint(folder, options.layers)
        spec = ModelSpec(
            model=name, device=options.device, dtype=options.dtype, quantize=options.quantize
        )
        begun = time.perf_counter()
        engine = load(spec, Progress(terminal=True))
        seconds = time.perf_counter() - begun
        report(engine, seconds)
        engine.stop()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--layers", type=int, default=28, help="28 is the true depth")
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    made.add_argument("--quantize", default="")
    made.add_argument("--folder", help="where to put the checkpoint; default: the system's")
    return made


def report(engine: Engine, seconds: float) -> None:
    """The table."""
    card = engine.card
    size = card.parameters * getattr(torch, card.dtype).itemsize
    bandwidth = copy_bandwidth(card.device)
    print(
        f"{card.architecture}, {card.parameters / 1e9:.2f} billion parameters, {card.dtype}, ",
        end="",
    )
    print(f"{device_name(card.device)}, torch {torch.__version__}\n")
    print("| what | figure |\n|---|---|")
    print(f"| load, first token included | {seconds:.1f} s |")
    print(f"| weights | {size / 1e9:.2f} GB |")
    print(f"| peak host memory | {peak_host_gb():.2f} GB |")
    if card.device.startswith("cuda"):
        print(f"| peak device memory | {torch.cuda.max_memory_allocated() / 1e9:.2f} GB |")
    print(f"| copy bandwidth, read and write | {bandwidth / 1e9:.0f} GB/s |")
    print(f"| limit for batch 1 | {bandwidth / size:.1f} tokens/s |")
    for batch in BATCHES:
        rate = tokens_per_second(engine, batch)
        print(f"| batch {batch} | {rate:.1f} tokens/s, ", end="")
        print(f"{rate / batch / (bandwidth / size):.2f} of the limit for each step |")


def tokens_per_second(engine: Engine, batch: int) -> float:
    """So many generations at once, each of TOKENS tokens; random weights seldom stop by chance."""
    prompt = list(range(3, 35))
    choice = Sampling(max_tokens=TOKENS)
    for ticket in [engine.submit(prompt, choice) for _ in range(batch)]:
        ticket.wait(600)  # once to warm up: kernels, graphs
    begun = time.perf_counter()
    tickets = [engine.submit(prompt, choice) for _ in range(batch)]
    made = 0
    for ticket in tickets:
        if not ticket.wait(600) or ticket.finish is None or ticket.finish.error:
            raise RuntimeError("a generation did not finish")
        made += ticket.finish.usage.completion_tokens
    return made / (time.perf_counter() - begun)


def write_checkpoint(folder: Path, layers: int) -> None:
    """The published layout, one shard for each layer, so that building takes little memory."""
    (folder / "tokenizer.model").write_bytes(small_tokenizer())
    (folder / "config.json").write_text(json.dumps(published_config(layers)))
    index: dict[str, str] = {}
    for number, tensors in enumerate(shards(layers)):
        file = f"model-{number:05d}.safetensors"
        save_file(tensors, folder / file)
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def shards(layers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Names and shapes of ChatGLM3-6B."""
    yield {"transformer.embedding.word_embeddings.weight": weights(VOCABULARY, HIDDEN)}
    rows = (HEADS + 2 * GROUPS) * DIM
    for layer in range(layers):
        base = f"transformer.encoder.layers.{layer}."
        yield {
            f"{base}input_layernorm.weight": torch.ones(HIDDEN, dtype=torch.float16),
            f"{base}post_attention_layernorm.weight": torch.ones(HIDDEN, dtype=torch.float16),
            f"{base}self_attention.query_key_value.weight": weights(rows, HIDDEN),
            f"{base}self_attention.query_key_value.bias": weights(rows),
            f"{base}self_attention.dense.weight": weights(HIDDEN, HEADS * DIM),
            f"{base}mlp.dense_h_to_4h.weight": weights(2 * INNER, HIDDEN),
            f"{base}mlp.dense_4h_to_h.weight": weights(HIDDEN, INNER),
        }
    yield {
        "transformer.encoder.final_layernorm.weight": torch.ones(HIDDEN, dtype=torch.float16),
        "transformer.output_layer.weight": weights(VOCABULARY, HIDDEN),
    }


def weights(*shape: int) -> torch.Tensor:
    """Small random fp16 numbers; their values do not matter for speed."""
    return torch.empty(shape, dtype=torch.float16).uniform_(-0.02, 0.02)


def published_config(layers: int) -> dict[str, object]:
    """The fields of ChatGLM3-6B's config.json that loading reads."""
    return {
        "model_type": "chatglm",
        "padded_vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_layers": layers,
        "num_attention_heads": HEADS,
        "ffn_hidden_size": INNER,
        "multi_query_attention": True,
        "multi_query_group_num": GROUPS,
        "kv_channels": DIM,
        "layernorm_epsilon": 1e-5,
        "seq_length": 8192,
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


def copy_bandwidth(device: str) -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rounds = 10
    target.copy_(source)
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(rounds):
        target.copy_(source)
    synchronize(device)
    return 2 * rounds * source.numel() / (time.perf_counter() - begun)


def synchronize(device: str) -> None:
    """Wait for what was started on a card."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """The card's name, or CPU with its threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def peak_host_gb() -> float:
    """The most memory that this process held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()

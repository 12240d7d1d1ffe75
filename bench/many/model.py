"""The folder that every contender loads, and its tokenizer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from bench.many.conversations import Count


def folder(name: str) -> Path:
    """A model folder; for the demo model the copy that this project converts once."""
    if name != "demo":
        return Path(name).expanduser().resolve()
    from modelhost.checkpoints.gguf import DemoCheckpoint  # brings torch: only when needed
    from modelhost.progress import Progress

    return DemoCheckpoint(cache_dir=None)._ensure_converted(Progress())


def counter(model: Path) -> Count:
    """Counts tokens as the model does, without control tokens."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count

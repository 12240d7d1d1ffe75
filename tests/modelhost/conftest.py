"""Small real models for the tests: a random Llama in a folder, and the demo model."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from modelhost import checkpoints, loading
from modelhost.checkpoints import Loaded, Placement
from modelhost.engine import Engine
from modelhost.progress import Progress
from modelhost.template import TemplateFormat
from modelhost.ticket import Ticket
from modelhost.types import ModelSpec, Piece
from tests.modelhost.deaths import Bomb

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CPU = torch.device("cpu")


def make_tokenizer(added: Sequence[str] = ("<tool_call>",)) -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML's special tokens and added tokens that are not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat and the dog and the hat are in the tool call"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|endoftext|>"],
    )
    fast.add_tokens([AddedToken(token, special=False) for token in added])
    fast.chat_template = CHATML
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Random weights, wide enough apart that the best token does not hang on rounding."""
    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=None,
        pad_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # it never ends by itself: lengths are the tests' to choose
        model.lm_head.weight[tokenizer.eos_token_id] = 0.0
    return model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model as `save_pretrained` writes it; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    transformers_logging.disable_progress_bar()
    make_model(tokenizer).save_pretrained(folder)
    transformers_logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture(scope="session")
def tiny_format(tiny_folder: Path) -> TemplateFormat:
    return checkpoints.locate(ModelSpec(model=str(tiny_folder)), Progress()).chat_format()


@pytest.fixture
def load_tiny(tiny_folder: Path) -> Callable[[], Loaded]:
    """A fresh copy of the tiny model in memory at each call."""
    checkpoint = checkpoints.locate(ModelSpec(model=str(tiny_folder)), Progress())
    return lambda: checkpoint.load(Placement(CPU, torch.float32), Progress())


@pytest.fixture
def serve(load_tiny: Callable[[], Loaded]) -> Iterator[Callable[..., Engine]]:
    """Start an engine around the tiny model or a given one; stopped after the test."""
    engines = []

    def start(loaded: Loaded | None = None, **options: Any) -> Engine:
        engine = Engine(loaded or load_tiny(), name="tiny", revision="test", **options)
        engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.stop()


class Gate:
    """Holds a model's forward passes until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()

    def guard(self, model: torch.nn.Module) -> None:
        model.register_forward_pre_hook(self._pass)

    def wait_reached(self) -> None:
        assert self._reached.wait(10)

    def open(self) -> None:
        self._open.set()

    def _pass(self, *_: object) -> None:
        self._reached.set()
        assert self._open.wait(30)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def many_threads() -> Iterator[None]:
    """PyTorch with more threads than there may be processors, and the same chance every time."""
    torch.manual_seed(21)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def finish() -> Callable[[Ticket], list[Piece]]:
    """All pieces of a ticket, read to its end."""

    async def collect(ticket: Ticket) -> list[Piece]:
        async with asyncio.timeout(60):
            return [piece async for piece in ticket]

    return lambda ticket: asyncio.run(collect(ticket))


@pytest.fixture
def ids_of(finish: Callable[[Ticket], list[Piece]]) -> Callable[[Ticket], list[int]]:
    """All token ids of a ticket, read to its end."""
    return lambda ticket: [one for piece in finish(ticket) for one in piece.token_ids]


@pytest.fixture(scope="session")
def demo_engine() -> Iterator[Engine]:
    """The real demo model, once for all tests that need it."""
    engine = loading.load(ModelSpec(device="cpu"), Progress())
    yield engine
    engine.stop()


@pytest.fixture
def story(finish: Callable[[Ticket], list[Piece]]) -> Callable[[Ticket], tuple[Any, ...]]:
    """All that a reader gets from a ticket."""
    return lambda ticket: (ticket.resumed_text, finish(ticket), ticket.finish)


@pytest.fixture
def doomed(load_tiny: Callable[[], Loaded], serve: Callable[..., Engine]) -> tuple[Engine, Bomb]:
    """An engine and its bomb."""
    loaded = load_tiny()
    bomb = Bomb(loaded.model)
    return serve(loaded), bomb

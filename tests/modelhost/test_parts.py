"""Products in parts: PyTorch's bits, whoever takes which part, and memory that is given back."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
import torch

from modelhost.cpu import halves, parts
from modelhost.cpu.halves import MOST_ROWS, Halves
from modelhost.cpu.parts import Parts

SHAPES = [(1, 1), (31, 40), (48, 64), (200, 2048), (1000, 576), (1536, 576), (576, 1536)]

pytestmark = [
    pytest.mark.usefixtures("many_threads"),
    pytest.mark.skipif(
        not (halves.available() and torch.__version__.startswith(parts.VERSION)),
        reason="this processor has no FBGEMM, or another PyTorch than the pinned one is installed",
    ),
]


@pytest.fixture
def asked_anew():
    """What was found out about this PyTorch is forgotten, before and after."""
    found = (parts.available, parts._library, halves._parts)
    for one in found:
        one.cache_clear()
    yield
    for one in found:
        one.cache_clear()


def weight_of(outputs: int, inputs: int) -> torch.Tensor:
    return torch.randn(outputs, inputs).half().float()


def by_the_operator(weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
    return torch.ops.quantized.linear_dynamic_fp16(rows, packed)


def test_with_the_pinned_version_there_are_some():
    assert parts.available()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 121, MOST_ROWS])
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_they_are_what_the_operator_computes(shape, count):
    weight, rows = weight_of(*shape), torch.randn(count, shape[1])

    assert torch.equal(Parts(weight)(rows), by_the_operator(weight, rows))


@pytest.mark.parametrize("several", [1, 2, 3, 16])
@torch.inference_mode()
def test_the_number_of_threads_changes_no_bit(several):
    weight, rows = weight_of(1000, 576), torch.randn(48, 576)
    whole = by_the_operator(weight, rows)
    torch.set_num_threads(several)

    assert torch.equal(Parts(weight)(rows), whole)


@torch.inference_mode()
def test_weights_and_rows_may_lie_in_memory_as_they_like():
    weight, rows = weight_of(64, 96).T, torch.randn(64, 7).T
    whole = by_the_operator(weight.contiguous(), rows.contiguous())

    assert torch.equal(Parts(weight)(rows), whole)
    assert torch.equal(Parts(weight)(rows[:1].expand(7, -1)), whole[:1].expand(7, -1))


@torch.inference_mode()
def test_several_threads_multiply_at_a_time():
    """Two engines, and a draft of one beside a warm-up of the other."""
    product, rows = Parts(weight_of(1000, 576)), torch.randn(48, 576)
    whole, wrong = product(rows), []

    def multiply() -> None:
        for _ in range(100):
            if not torch.equal(product(rows), whole):
                wrong.append(1)

    several = [threading.Thread(target=multiply) for _ in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join(60)
    assert not wrong


def test_the_memory_of_a_weight_that_nobody_has_is_given_back():
    weight = weight_of(4096, 2048)  # 16 MB when packed
    Parts(weight)
    before = resident()
    for _ in range(20):
        Parts(weight)
    gc.collect()

    assert resident() - before < 100_000_000


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@torch.inference_mode()
def test_a_weight_is_multiplied_so_where_it_can_be():
    assert isinstance(Halves(weight_of(64, 96), None, 0)._multiply, Parts)


def another_version(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.14.0")


def no_such_function(monkeypatch):
    monkeypatch.setattr(parts, "FREE", "_ZN6fbgemm4freeEPv")


def other_numbers(monkeypatch):
    monkeypatch.setattr(parts, "TRANSPOSED", parts.AS_IT_IS)


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize("missing", [another_version, no_such_function, other_numbers])
@torch.inference_mode()
def test_without_them_the_operator_multiplies(monkeypatch, missing):
    missing(monkeypatch)
    weight, rows = weight_of(64, 96), torch.randn(48, 96)

    assert not parts.available()
    product = Halves(weight, None, 0)
    assert not isinstance(product._multiply, Parts)
    assert torch.equal(product(rows), by_the_operator(weight, rows))

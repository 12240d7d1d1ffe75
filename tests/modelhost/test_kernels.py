"""Compiled kernels: PyTorch's numbers, a row the same in any company, and by any threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama

from modelhost.cpu import kernels, openmp
from modelhost.cpu.openmp import Kernel

MUCH, LITTLE = 10**9, 0  # work: in all threads, in the caller's
ADD_AND_NORM = Kernel(kernels.add_and_norm)
TURN_AND_STORE = Kernel(kernels.turn_and_store)
ATTEND = Kernel(kernels.attend)
GATE = Kernel(kernels.gate)

pytestmark = pytest.mark.usefixtures("many_threads")
works = pytest.mark.parametrize("work", [LITTLE, MUCH], ids=["one thread", "threads"])


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=2e-5, atol=1e-5)


# Norm.


def norm(rows, weight, *, added=None, work=LITTLE) -> torch.Tensor:
    result = torch.full_like(rows, 9.0)
    ADD_AND_NORM(*rows.shape, 1e-5, weight, rows, added, result, work=work)
    return result


@works
@pytest.mark.parametrize("shape", [(1, 1), (3, 64), (40, 577)])
def test_a_norm_is_pytorchs(shape, work):
    rows, weight = torch.randn(shape), torch.randn(shape[1])
    before = rows.clone()

    result = norm(rows, weight, work=work)

    assert close(result, rms_norm(rows, shape[1:], weight, 1e-5))
    assert torch.equal(rows, before)


@works
def test_what_is_added_before_a_norm_is_added_once_to_every_row(work):
    rows, added, weight = torch.randn(501, 64), torch.randn(501, 64), torch.randn(64)
    total = rows + added

    result = norm(rows, weight, added=added, work=work)

    assert torch.equal(rows, total)  # a row that two threads took would have it twice
    assert close(result, rms_norm(total, (64,), weight, 1e-5))


# Positions.


def neighbours(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return modeling_glm.apply_rotary_pos_emb(heads, heads, cos, sin, unsqueeze_dim=1)[0]


def halves(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return modeling_llama.apply_rotary_pos_emb(heads, heads, cos, sin, unsqueeze_dim=1)[0]


@works
@pytest.mark.parametrize(
    ("turned", "dim", "size", "apart", "step"),
    [(halves, 8, 8, 4, 1), (neighbours, 8, 8, 1, 2), (neighbours, 8, 4, 1, 2)],
    ids=["Llama", "ChatGLM, all of a head", "ChatGLM"],
)
def test_query_and_key_are_turned_as_the_library_turns_them(
    turned: Callable, dim: int, size: int, apart: int, step: int, work: int
):
    rows, heads, groups = 30, 6, 2
    every = torch.randn(rows, heads + 2 * groups, dim)
    before = every.clone()
    angles = torch.randn(rows, size // 2)
    cos, sin = angles.cos(), angles.sin()
    write = torch.randperm(100)[:rows]
    keys, values = torch.zeros(100, groups, dim), torch.zeros(100, groups, dim)

    TURN_AND_STORE(
        *(rows, heads, groups, dim, size // 2, apart, step),
        *(every, cos, sin, write, keys, values),
        work=work,
    )

    expected = before.clone()
    both = (torch.cat((one, one), dim=-1) for one in (cos, sin))
    expected[:, : heads + groups] = turned(before[:, : heads + groups], *both)
    assert close(every, expected)
    assert torch.equal(keys[write], every[:, heads : heads + groups])
    assert torch.equal(values[write], before[:, heads + groups :])
    others = torch.ones(100, dtype=torch.bool).index_fill(0, write, value=False)
    assert not keys[others].any()
    assert not values[others].any()


# Attention.


class Batch:
    """Requests with one new token each, their keys all over a cache."""

    def __init__(self, counts: list[int], *, heads: int, groups: int, dim: int) -> None:
        self.counts, self.shape = counts, (heads, groups, dim)
        self.keys, self.values = torch.randn(2, 2000, groups, dim)
        self.every = torch.randn(len(counts) + 3, heads + 2 * groups, dim)
        self.read = torch.randperm(2000)[: sum(counts)]
        first = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
        rows = torch.arange(len(counts)) + 2  # others' rows are before and behind
        self.which = torch.stack((rows, first, torch.tensor(counts)), dim=1)

    def attend(self, *, work: int, only: slice = slice(None)) -> torch.Tensor:
        heads, _, dim = self.shape
        result = torch.full((len(self.every), heads, dim), 9.0)
        which = self.which[only].contiguous()
        sizes = (len(which), *self.shape, int(which[:, 2].max()), 0.3)
        where = (which, self.every, self.read, self.keys, self.values, result)
        ATTEND(*sizes, *where, work=work)
        return result

    def expected(self, at: int) -> torch.Tensor:
        heads, groups, dim = self.shape
        row, first, count = self.which[at].tolist()
        own = self.read[first : first + count]
        query = self.every[row, :heads].view(1, groups, heads // groups, dim)
        key, value = (one[own].transpose(0, 1)[None] for one in (self.keys, self.values))
        return scaled_dot_product_attention(query, key, value, scale=0.3).view(heads, dim)


@works
@pytest.mark.parametrize("shape", [(4, 4, 8), (9, 3, 64), (32, 2, 128), (6, 2, 5)])
def test_attention_is_pytorchs_wherever_the_keys_are(shape, work):
    heads, groups, dim = shape
    batch = Batch([1, 2, 3, 4, 5, 16, 17, 900], heads=heads, groups=groups, dim=dim)

    result = batch.attend(work=work)

    for at, (row, *_) in enumerate(batch.which.tolist()):
        assert close(result[row], batch.expected(at))
    assert (result[:2] == 9.0).all()
    assert (result[2 + len(batch.counts) :] == 9.0).all()


def test_a_token_attends_alone_as_in_any_company_to_the_bit():
    batch = Batch([700, 3, 41, 200], heads=9, groups=3, dim=64)
    together = batch.attend(work=MUCH)

    for at in range(len(batch.counts)):
        alone = batch.attend(work=LITTLE, only=slice(at, at + 1))
        assert torch.equal(alone[at + 2], together[at + 2])


def test_scores_far_apart_leave_the_largest():
    batch = Batch([5, 300], heads=4, groups=2, dim=8)
    batch.every *= 1000

    result = batch.attend(work=LITTLE)

    assert all(close(result[at + 2], batch.expected(at)) for at in range(2))


def test_what_is_no_number_stays_with_its_request():
    batch = Batch([7, 9], heads=4, groups=2, dim=8)
    batch.keys[batch.read[3], 1, 0] = float("nan")

    result = batch.attend(work=MUCH)

    assert result[2, 2:].isnan().all()  # the second group's heads
    assert not result[3].isnan().any()


# Gates.


def opened(both: torch.Tensor, *, work: int = LITTLE) -> torch.Tensor:
    result = torch.empty(both.shape[0], both.shape[1] // 2)
    GATE(*result.shape, both, result, work=work)
    return result


@works
def test_a_gate_is_pytorchs(work):
    both = 10 * torch.randn(33, 2 * 100)

    gate, through = both.chunk(2, dim=1)
    assert close(opened(both, work=work), silu(gate) * through)


def test_a_gate_at_its_ends():
    gates = [-1e30, -200.0, -87.5, -80.0, -1e-6, 0.0, 1e-6, 80.0, 200.0, 1e30]
    both = torch.tensor([[*gates, *[1.0] * len(gates)]])

    assert torch.allclose(opened(both)[0], silu(torch.tensor(gates)), rtol=1e-6, atol=1e-35)
    assert opened(torch.tensor([[float("nan"), 1.0]])).isnan().all()


# How they are called.


def test_without_pytorchs_threads_the_bits_are_the_same(monkeypatch):
    batch = Batch([700, 3, 41, 200], heads=9, groups=3, dim=64)
    together = batch.attend(work=MUCH)
    assert openmp.parallel() is not None

    monkeypatch.setattr(openmp, "SCOPES", ())
    openmp.parallel.cache_clear()
    try:
        assert torch.equal(batch.attend(work=MUCH), together)
        assert openmp.parallel() is None
    finally:
        openmp.parallel.cache_clear()


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4, 2).half(), torch.zeros(2, 4).t()],
    ids=["64 bits", "16 bits", "not in one piece"],
)
def test_a_tensor_that_a_kernel_would_read_wrongly_is_refused(wrong):
    with pytest.raises(ValueError, match="cannot read"):
        GATE(4, 1, wrong, torch.empty(4, 1), work=LITTLE)

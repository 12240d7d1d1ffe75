"""What steps look like on CUDA, seen on a CPU: padded to a few sizes, attention without a mask.

A kernel in plain PyTorch stands in for the card's; capturing itself needs a card, and was tried
on one (docs/figures.md).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from modelhost import batching
from modelhost.cuda import flash, graphs
from modelhost.sampling import Mode
from modelhost.types import Sampling
from tests.modelhost.test_engine import WARM, prompts


def slow_varlen(q, k, v, ends_q, ends_k, longest_q, longest_k, *, scale, window_size, enable_gqa):
    """The kernel's contract, one request after the other: causal from the end, a window before."""
    left, right = window_size
    result = torch.full_like(q, torch.nan)  # rows of no request are nobody's
    ends = zip(ends_q.tolist(), ends_q.tolist()[1:], ends_k.tolist(), ends_k.tolist()[1:], strict=0)
    for q_from, q_to, k_from, k_to in ends:
        assert q_to - q_from <= longest_q
        assert k_to - k_from <= longest_k
        own = [
            part.transpose(0, 1).float()
            for part in (q[q_from:q_to], k[k_from:k_to], v[k_from:k_to])
        ]
        repeats = own[0].shape[0] // own[1].shape[0]
        keys, values = (one.repeat_interleave(repeats, dim=0) for one in own[1:])
        scores = own[0] @ keys.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)
        last = torch.arange(q_to - q_from)[:, None] + (k_to - k_from) - (q_to - q_from)
        at = torch.arange(k_to - k_from)[None]
        seen = (at <= last + right if right >= 0 else at >= 0) & (
            at >= last - left if left >= 0 else at >= 0
        )
        part = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values
        result[q_from:q_to] = part.transpose(0, 1).to(q.dtype)
    return result


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Managers with padded steps and the other attention, and the runners they were given."""
    made, plain = [], batching.new_manager

    def new_manager(model, **options):
        flash.use(model)
        manager = plain(model, **options)
        batching._capture_graphs(manager)
        runner = manager.batch_processor.model_runner
        runner.pad_inputs = True
        made.append(runner)
        return manager

    monkeypatch.setattr(flash, "varlen_attn", slow_varlen)
    monkeypatch.setattr(batching, "new_manager", new_manager)
    return made


@pytest.mark.parametrize("choice", [Sampling(max_tokens=30), WARM], ids=["greedy", "sampled"])
def test_padded_steps_make_the_same_tokens(choice, serve, ids_of, request):
    plain = serve()
    expected = [ids_of(plain.submit(prompt, choice)) for prompt in prompts(9)]
    request.getfixturevalue("as_on_cuda")

    padded = serve()

    tickets = [padded.submit(prompt, choice) for prompt in prompts(9)]
    assert [ids_of(ticket) for ticket in tickets] == expected
    assert [ids_of(padded.submit(prompt, choice)) for prompt in prompts(9)] == expected


def test_a_graph_is_for_one_kind_of_step(as_on_cuda, serve, ids_of):
    engine = serve()
    [runner] = as_on_cuda
    assert {mode for _, mode, _ in runner._graphs} == {Mode.GREEDY}, "what warming up needs"

    ids_of(engine.submit([5, 6, 7], Sampling(max_tokens=4)))
    ids_of(engine.submit([5, 6, 7], Sampling(max_tokens=4, temperature=1.0)))
    ids_of(engine.submit([5, 6, 7], WARM))

    both = {(mode, alone) for _, mode, alone in runner._graphs}
    assert both == {(mode, alone) for mode in Mode for alone in (True, False)}


@pytest.mark.parametrize(
    ("tokens", "read", "padded"),
    [(1, 0, (8, 0)), (1, 3, (8, 1024)), (9, 1025, (16, 2048)), (64, 9000, (64, 9984)),
     (65, 9000, (65, 9000)), (256, 0, (256, 0))],
)  # fmt: skip
def test_small_steps_come_in_few_sizes_and_large_ones_as_they_are(tokens, read, padded):
    runner = object.__new__(graphs.GraphRunner)
    runner._largest = 64
    runner.cache = SimpleNamespace(max_decode_fast_path_length=0, max_tokens_read=9984)

    assert runner.maybe_pad_inputs(tokens, read, use_decode_fast_path=True) == padded


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("lengths", [[(1, 9), (1, 1), (1, 30)], [(4, 9), (1, 30), (7, 7)]])
def test_attention_is_each_requests_own(lengths, window, monkeypatch):
    monkeypatch.setattr(flash, "varlen_attn", slow_varlen)
    torch.manual_seed(2)
    queries, keys = sum(q for q, _ in lengths), sum(k for _, k in lengths)
    query = torch.randn(1, 6, queries + 2, 8)  # two rows only fill up
    key, value = torch.randn(2, 1, 2, keys, 8)
    ends = [torch.tensor([0, *part]).cumsum(0).int() for part in zip(*lengths, strict=True)]

    def update(key_states, value_states, layer_idx, kwargs):
        kwargs |= {"cu_seq_lens_k": ends[1], "max_length_k": 64}
        return key, value

    given = (SimpleNamespace(layer_idx=0), query, key[:, :, :0], value[:, :, :0], None)
    options = {"cache": SimpleNamespace(update=update), "cu_seq_lens_q": ends[0]}
    longest = max(q for q, _ in lengths)
    found, _ = flash.attend(*given, sliding_window=window, max_length_q=longest, **options)

    left = -1 if window is None else window - 1
    rows = [part[0].transpose(0, 1) for part in (query, key, value)]
    expected = slow_varlen(*rows, *ends, 64, 64, scale=None, window_size=(left, 0), enable_gqa=True)
    torch.testing.assert_close(found[0, :queries], expected[:queries])

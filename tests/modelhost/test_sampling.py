"""Sampling: what is refused, and that arg-max over noisy scores is an exact sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from modelhost import sampling
from modelhost.errors import BadSampling
from modelhost.types import Sampling
from modelhost.validation import check_sampling

VOCABULARY = 320
RIGHT = Sampling(max_tokens=8, temperature=0.7, top_p=0.9, top_k=5, seed=1, stop=("\n",))


# What is refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_tokens", value) for value in (0, -1, 2.5, "8", None, True)),
        *(
            ("temperature", value)
            for value in (
                -0.1,
                2.01,
                float("nan"),
                float("inf"),
                -float("inf"),
                10**400,
                "hot",
                None,
            )
        ),
        *(("top_p", value) for value in (0, -0.5, 1.01, float("nan"), float("inf"), "1", None)),
        *(("top_k", value) for value in (-1, VOCABULARY + 1, 10**20, 2.5, None, True)),
        *(("seed", value) for value in (1 << 63, -(1 << 63) - 1, 1.5, "1", None)),
        *(("stop", value) for value in (("",), ("x" * 257,), ("x",) * 17, ("ok", 5), "abc", None)),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(BadSampling) as refusal:
        check_sampling(replace(RIGHT, **{field: value}), vocabulary=VOCABULARY)

    assert refusal.value.field == field
    assert field in str(refusal.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", value) for value in (0, 0.0, 1e-45, 1, 2)),
        *(("top_p", value) for value in (1e-300, 0.5, 1, 1.0)),
        *(("top_k", value) for value in (0, 1, VOCABULARY)),
        *(("seed", value) for value in (-(1 << 63), 0, (1 << 63) - 1)),
        *(("stop", value) for value in ((), ("x" * 256,) * 16)),
        ("max_tokens", 1),
    ],
)
def test_a_value_at_the_edge_of_its_range_is_accepted(field, value):
    check_sampling(replace(RIGHT, **{field: value}), vocabulary=VOCABULARY)


# Keys and noise


def test_the_hash_is_splitmix64():
    # The first output of the published generator from state 0.
    assert sampling._splitmix64(0) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize(
    ("seed", "position", "key"),
    [
        (0, 0, 0xA706DD2F4D197E6F),
        (0, 1, 0x08B4FDA8C892B50E),
        (42, 7, 0x16062D6C1339E500),
        (-1, 100, 0x3755B93169CD7C4E),
        ((1 << 63) - 1, 8191, 0x31A20EE15B504D9B),
    ],
)
def test_the_key_of_a_step_is_the_same_in_every_release(seed, position, key):
    assert sampling.step_key(seed, position) == key


def test_the_noise_of_a_key_is_the_same_in_every_release():
    noise = sampling.gumbel(*keys([sampling.step_key(42, 7)]), 4)

    assert noise[0].tolist() == pytest.approx([0.2803, 0.4386, 0.4847, 1.4830], abs=1e-4)


def test_keys_do_not_repeat_over_seeds_and_positions():
    made = {sampling.step_key(seed, position) for seed in range(100) for position in range(100)}

    assert len(made) == 10_000


def keys(values):
    words = [
        [sampling._as_int32(value & 0xFFFFFFFF), sampling._as_int32(value >> 32)]
        for value in values
    ]
    return torch.tensor(words, dtype=torch.int32).unbind(dim=1)


def test_the_noise_of_a_request_does_not_depend_on_its_batch_mates():
    values = [sampling.step_key(seed, 3) for seed in range(12)]

    together = sampling.gumbel(*keys(values), 50)

    for row, value in zip(together, values, strict=True):
        assert torch.equal(row, sampling.gumbel(*keys([value]), 50)[0])


def test_the_noise_is_a_standard_gumbel_variable():
    noise = sampling.gumbel(*keys([sampling.step_key(5, at) for at in range(400)]), 1000).double()

    assert torch.isfinite(noise).all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.02)
    for quantile in (0.01, 0.5, 0.99, 0.9999):
        value = -torch.log(-torch.log(torch.tensor(quantile, dtype=torch.double)))
        share = (noise < value).double().mean().item()
        assert share == pytest.approx(
            quantile, abs=4 * (quantile * (1 - quantile) / 400_000) ** 0.5
        )


def test_the_largest_of_scores_and_noise_is_a_sample_of_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0, -3.0, 1.5])
    steps = 40_000
    values = [sampling.step_key(9, position) for position in range(steps)]

    drawn = (logits + sampling.gumbel(*keys(values), len(logits))).argmax(dim=-1)

    expected = logits.softmax(dim=-1) * steps
    observed = torch.bincount(drawn, minlength=len(logits))
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    assert chi_square < 29.9  # 7 degrees of freedom: a right sampler fails once in 10,000 seeds


def test_what_is_drawn_at_one_step_says_nothing_about_the_next():
    steps = 40_000
    drawn = sampling.gumbel(*keys([sampling.step_key(3, at) for at in range(steps)]), 4).argmax(-1)

    pairs = torch.bincount(drawn[:-1] * 4 + drawn[1:], minlength=16)

    expected = (steps - 1) / 16
    assert (((pairs - expected) ** 2) / expected).sum().item() < 44.3  # 15 degrees, 1 in 10,000


# Truncation


# The same examples at each run: sums of floats may differ in the last bit just at top_p.
@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.integers(0, 2**31), st.integers(1, 60), st.floats(0.05, 0.999))
def test_truncation_agrees_with_transformers(seed, top_k, top_p):
    scores = torch.randn(3, 60, generator=torch.Generator().manual_seed(seed)) * 3

    ours = sampling.truncate(scores, torch.full((3,), top_k), torch.full((3,), top_p))

    theirs = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, scores))
    assert torch.equal(ours, theirs)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_top_k_alone_agrees_with_transformers(seed, top_k):
    scores = torch.randn(2, 60, generator=torch.Generator().manual_seed(seed))

    ours = sampling.truncate(scores, torch.full((2,), top_k), torch.ones(2))

    assert torch.equal(ours, TopKLogitsWarper(top_k)(None, scores))


def test_truncation_that_is_off_changes_nothing():
    scores = torch.randn(4, 30)

    assert torch.equal(sampling.truncate(scores, torch.zeros(4), torch.ones(4)), scores)


def test_every_row_is_truncated_by_its_own_numbers():
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 3)

    kept = sampling.truncate(scores, torch.tensor([1, 0, 3]), torch.tensor([1.0, 0.7, 1.0]))

    assert kept.isfinite().sum(dim=-1).tolist() == [1, 2, 3]


def test_the_best_token_stays_whatever_top_p_is():
    kept = sampling.truncate(torch.tensor([[0.0, 5.0, 1.0]]), torch.zeros(1), torch.tensor([1e-30]))

    assert kept.isfinite().tolist() == [[False, True, False]]

"""The sampler of a batch: each request's tokens are its own, whatever the others ask for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhost import sampling
from modelhost.types import Sampling


def scheduled(choice, position=10, *, has_new_token=True):
    """A request as the manager's scheduler hands it over."""
    state = SimpleNamespace(position_offset=position, logit_processor_kwargs={"sampling": choice})
    return SimpleNamespace(state=state, has_new_token=has_new_token)


def process(scores, requests, *, mode=None, columns=16):
    sampler = sampling.RequestSampler()
    arguments = torch.empty(sampler.tensors_required, columns, dtype=torch.int32)
    sampler.fill_defaults(arguments)
    sampler.prepare_tensor_args(requests, arguments)
    sampler.mode = mode or sampler.mode
    return sampler(None, scores, arguments)


CHOICES = st.builds(
    Sampling,
    max_tokens=st.just(8),
    temperature=st.sampled_from([0.0, 1e-45, 1e-6, 0.3, 1, 2.0]),
    top_p=st.sampled_from([1, 0.9, 0.2, 1e-300]),
    top_k=st.sampled_from([0, 1, 3, 40]),
    seed=st.integers(-(1 << 63), (1 << 63) - 1),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(CHOICES, min_size=1, max_size=6), st.integers(0, 2**31))
def test_a_step_that_does_more_than_its_requests_ask_for_draws_the_same_tokens(choices, seed):
    scores = torch.randn(len(choices), 40, generator=torch.Generator().manual_seed(seed)) * 4
    requests = [scheduled(choice) for choice in choices]

    needed = process(scores, requests).argmax(dim=-1)

    most = process(scores, requests, mode=sampling.Mode.TRUNCATED)
    assert torch.equal(most.argmax(dim=-1), needed)


@pytest.mark.parametrize(
    ("choices", "mode"),
    [
        ([{}], "greedy"),
        ([{}, {"temperature": 0.5}], "sampled"),
        ([{"top_p": 0.5, "top_k": 3}], "greedy"),  # without a temperature neither matters
        ([{}, {"temperature": 1.0, "top_k": 3}], "truncated"),
        ([{"temperature": 1.0, "top_p": 0.9}], "truncated"),
    ],
)
def test_a_step_does_what_its_requests_ask_for(choices, mode):
    sampler = sampling.RequestSampler()
    requests = [scheduled(Sampling(max_tokens=1, **choice)) for choice in choices]

    sampler.prepare_tensor_args(requests, torch.zeros(5, 16, dtype=torch.int32))

    assert sampler.mode == mode


def test_requests_that_the_library_makes_up_are_greedy():
    made_up = scheduled(Sampling(max_tokens=1))
    made_up.state.logit_processor_kwargs = {}
    scores = torch.randn(1, 40)

    assert torch.equal(process(scores, [made_up]), scores)


@settings(deadline=None, max_examples=100)
@given(st.lists(CHOICES, min_size=2, max_size=6), st.integers(0, 2**31))
def test_a_request_draws_the_same_token_alone_and_in_company(choices, seed):
    scores = torch.randn(len(choices), 40, generator=torch.Generator().manual_seed(seed)) * 4

    together = process(scores, [scheduled(choice) for choice in choices]).argmax(dim=-1)

    for row, choice, token in zip(scores, choices, together, strict=True):
        assert process(row.unsqueeze(0), [scheduled(choice)]).argmax() == token


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([0, 0.0, 1e-300, 1e-45, 9e-7]), st.integers(0, 2**31), st.booleans())
def test_a_temperature_of_almost_nothing_is_greedy(temperature, seed, most):
    generator = torch.Generator().manual_seed(seed)
    scores = 5 + torch.randn(2, 40, generator=generator) * 1e-6  # nearly equal, so noise would tell
    warm = Sampling(max_tokens=1, temperature=1.0)
    cold = Sampling(max_tokens=1, temperature=temperature, seed=seed)
    mode = sampling.Mode.TRUNCATED if most else None

    out = process(scores, [scheduled(warm), scheduled(cold)], mode=mode)

    assert out[1].argmax() == scores[1].argmax()


def test_requests_that_get_no_token_in_a_step_take_no_column():
    scores = torch.randn(2, 40)
    first, second = (Sampling(max_tokens=1, temperature=1.5, seed=seed) for seed in (1, 2))
    reading = scheduled(Sampling(max_tokens=1, temperature=2.0, seed=3), has_new_token=False)

    out = process(scores, [scheduled(first), reading, scheduled(second)])

    assert torch.equal(out, process(scores, [scheduled(first), scheduled(second)]))


def test_a_step_that_only_reads_prompts_needs_no_sampling():
    reading = scheduled(Sampling(max_tokens=1), has_new_token=False)

    assert process(torch.empty(0, 40), [reading]).shape == (0, 40)


def test_the_same_seed_draws_anew_at_each_position():
    scores = torch.zeros(1, 40)
    choice = Sampling(max_tokens=1, temperature=1.0, seed=4)

    drawn = {process(scores, [scheduled(choice, at)]).argmax().item() for at in range(60)}

    assert len(drawn) > 15

"""Before anybody is served: an engine whose first tokens are not its model's is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from modelhost import loading, proof
from modelhost.engine import Engine
from modelhost.errors import GenerationFailed, LoadFailed
from modelhost.progress import Progress
from tests.modelhost.deaths import Bomb
from tests.modelhost.folders import spec_of


def test_an_engine_that_answers_as_its_model_would_passes(load_tiny, serve):
    loaded = load_tiny()

    proof.check(serve(loaded), loaded.model)


def test_an_engine_that_answers_as_another_model_would_is_refused(load_tiny, serve):
    other = load_tiny().model
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.neg_()

    with pytest.raises(GenerationFailed, match=r"not those that it chooses alone in float32\."):
        proof.check(serve(load_tiny()), other)


def test_on_a_card_it_is_said_and_not_refused(load_tiny, serve, caplog, monkeypatch):
    elsewhere = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(proof, "_agree", lambda *_: False)
    proof.check(serve(load_tiny()), elsewhere)

    assert "not those that it chooses alone in float32." in caplog.text


def test_a_model_that_computes_for_the_engine_only_is_served(load_tiny, serve, caplog):
    loaded, other = load_tiny(), load_tiny().model

    def fail(*_: object) -> None:
        raise TypeError("no cache is here")

    other.register_forward_pre_hook(fail)
    proof.check(serve(loaded), other)

    assert "cannot be asked for its tokens" in caplog.text
    assert "no cache is here" in caplog.text


def test_numbers_that_are_none_are_refused(load_tiny, serve):
    loaded = load_tiny()
    with torch.no_grad():
        loaded.model.model.norm.weight.fill_(torch.nan)

    with pytest.raises(GenerationFailed, match="not those that it chooses alone"):
        proof.check(serve(loaded), loaded.model)


def test_why_its_thread_died_is_in_the_sentence(load_tiny, serve):
    loaded = load_tiny()

    def fail(*_: object) -> None:
        raise RuntimeError("two sizes that do not fit.\nMore lines of it.")

    engine = serve(loaded)
    loaded.model.register_forward_pre_hook(fail)

    with pytest.raises(GenerationFailed, match=r"did not come \(two sizes that do not fit\)\."):
        proof.check(engine, loaded.model)


def test_an_engine_that_had_to_be_revived_is_refused(load_tiny, serve):
    loaded = load_tiny()
    engine = serve(loaded)
    Bomb(loaded.model).arm(2)

    with pytest.raises(GenerationFailed, match=r"did not come \(a kernel went wrong\)\."):
        proof.check(engine, loaded.model)


def test_a_refusal_is_the_loads(folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise GenerationFailed("Its numbers are none.")

    monkeypatch.setattr(proof, "check", refuse)

    with pytest.raises(LoadFailed, match=r"cannot answer: Its numbers are none\."):
        loading.load(spec_of(folder), Progress())


@pytest.mark.parametrize("error", [RuntimeError("unforeseen"), MemoryError()])
def test_whatever_a_proof_raises_no_engine_is_left_running(folder, monkeypatch, error):
    engines: list[Engine] = []

    def fail(engine: Engine, _: object) -> None:
        engines.append(engine)
        raise error

    monkeypatch.setattr(proof, "check", fail)

    with pytest.raises((RuntimeError, LoadFailed)):
        loading.load(spec_of(folder), Progress())
    assert [engine.alive for engine in engines] == [False]


def test_a_model_for_which_there_is_no_memory_is_told_with_the_device_that_was_chosen(
    folder, monkeypatch
):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(proof, "check", fail)

    chosen = loading.pick_device("auto")
    with pytest.raises(LoadFailed, match=f"does not fit into the memory of the device {chosen}"):
        loading.load(replace(spec_of(folder), device="auto"), Progress())


@pytest.mark.parametrize(("tokens", "left"), [(1, 0), (32, 16)])
def test_a_cache_that_holds_no_prompt_is_told_by_its_setting(folder, tokens, left):
    sentence = f"leaves {left} tokens for a prompt and its answer. Choose a larger LLMSITE_CACHE"
    with pytest.raises(LoadFailed, match=sentence):
        loading.load(replace(spec_of(folder), cache_tokens=tokens), Progress())

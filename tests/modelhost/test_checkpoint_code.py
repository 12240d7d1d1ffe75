"""No code of a checkpoint runs: neither its modules nor its pickles."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from modelhost import loading
from modelhost.checkpoints.shards import SINGLE
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from tests.modelhost.folders import edit, spec_of

BOOBY_TRAP = """
from pathlib import Path
Path({canary!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): pass
class Model(LlamaForCausalLM): pass
class Tokenizer(PreTrainedTokenizerFast): pass
"""
AUTO_MAP = {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model"}


class Pickled:
    """Touches a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def test_the_code_of_a_folder_does_not_run_when_its_architecture_is_known(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "trap.py").write_text(BOOBY_TRAP.format(canary=str(canary)))
    edit("config.json", auto_map=AUTO_MAP, _attn_implementation_internal="someone/trap")(folder)

    loading.load(spec_of(folder), Progress()).stop()  # with transformers' own Llama

    assert not canary.exists()


@pytest.mark.parametrize(
    "break_it",
    [
        edit("config.json", auto_map=AUTO_MAP, model_type="trap"),
        edit("config.json", auto_map=AUTO_MAP, model_type="trap", architectures=["Model"]),
        edit(
            "tokenizer_config.json",
            auto_map={"AutoTokenizer": ["trap.Tokenizer", "trap.Tokenizer"]},
            tokenizer_class="Tokenizer",
        ),
    ],
)
def test_a_folder_that_needs_its_own_code_is_refused_and_its_code_does_not_run(
    folder, tmp_path, break_it
):
    canary = tmp_path / "canary"
    (folder / "trap.py").write_text(BOOBY_TRAP.format(canary=str(canary)))
    break_it(folder)

    with pytest.raises(LoadFailed):
        loading.load(spec_of(folder), Progress())

    assert not canary.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model.bin.index.json"])
def test_a_folder_of_pickles_is_refused_and_nothing_is_unpickled(folder, tmp_path, name):
    canary = tmp_path / "canary"
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(pickle.dumps(Pickled(canary)))

    with pytest.raises(LoadFailed, match="safetensors only"):
        loading.load(spec_of(folder), Progress())

    assert not canary.exists()


def test_a_pickle_beside_the_weights_is_not_read(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Pickled(canary)))

    loading.load(spec_of(folder), Progress()).stop()

    assert not canary.exists()

"""A folder of ChatGLM3 that is not whole: one sentence that names the file and says what to do."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys

import pytest

from modelhost import __main__ as command_line
from modelhost import loading
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.types import ModelSpec
from tests.modelhost.broken import BROKEN
from tests.modelhost.forced import SHARED, TINY

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference checkpoint of ChatGLM3 is not beside the repository"
)

WHAT_TO_DO = re.compile(r"[Dd]ownload .+\.|Take .+ release\.|add it\.")
LINE = json.dumps({"turns": [{"role": "user", "content": "hi"}], "max_tokens": 1}) + "\n"


@pytest.fixture(params=BROKEN)
def broken(request, tmp_path):
    """A broken folder, and the pattern of what the refusal must name."""
    folder = tmp_path / "chatglm3-broken"
    shutil.copytree(TINY, folder, copy_function=shutil.copyfile)
    break_it, named = BROKEN[request.param]
    break_it(folder)
    return folder, named


def test_loading_is_refused_in_one_sentence(broken):
    folder, named = broken

    with pytest.raises(LoadFailed, match=named) as refused:
        loading.load(ModelSpec(model=str(folder), device="cpu"), Progress())
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize("command", ["inspect", "generate", "render"])
def test_the_command_line_ends_with_that_sentence_alone(broken, command, monkeypatch, capfd):
    folder, named = broken
    monkeypatch.setattr(sys, "stdin", io.StringIO(LINE))

    code = command_line.main([command, "--model", str(folder), "--device", "cpu"])

    printed = capfd.readouterr()
    assert code == 1
    assert printed.out == ""
    [sentence] = printed.err.splitlines()
    assert re.search(named, sentence)
    assert str(folder) in sentence
    assert WHAT_TO_DO.search(sentence)


@pytest.mark.parametrize("broken", ["truncated shard"], indirect=True)
def test_the_command_itself_prints_no_traceback(broken):
    done = subprocess.run(
        [sys.executable, "-m", "modelhost", "generate", "--model", str(broken[0])],
        input=LINE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    *noise, sentence = done.stderr.splitlines()  # torchao, where it is installed, talks at import
    assert "model-00001-of-00003.safetensors is damaged or cut short" in sentence
    assert "Traceback" not in "".join(noise)

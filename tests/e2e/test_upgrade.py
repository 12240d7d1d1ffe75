"""A database that is older than the code, and processes that find it so at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.deployed import ASK, Deployed, prepared
from tests.e2e.places import ROOT
from tests.web import eventually


def migrate(data: Path, *to: str) -> None:
    """`manage.py migrate`"""
    subprocess.run(
        [sys.executable, "manage.py", "migrate", *to],
        env={**os.environ, "LLMSITE_DATA": str(data)},
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_who_forgot_to_migrate_is_told_and_need_not_start_again(tmp_path, server):
    key = prepared(tmp_path)
    migrate(tmp_path, "chat", "0001")
    deployed = Deployed(server, tmp_path, key, drain=0, ready=False)
    try:
        eventually(lambda: deployed.status_of("/readyz") == 503)
        with deployed.client() as client:
            asked = client.post(ASK, json={"prompt": "alpha 1"})
            assert (asked.status_code, asked.json()["code"]) == (503, "database_unavailable")
            migrate(tmp_path)
            eventually(lambda: deployed.status_of("/readyz") == 200)
            assert client.post(ASK, json={"prompt": "alpha 1"}).status_code == 200
        assert deployed.printed.count("run manage.py migrate") == 1
        assert "Traceback" not in deployed.printed
    finally:
        deployed.kill()


def test_of_two_that_begin_with_nothing_both_serve(tmp_path):
    start = partial(Deployed, "serve", tmp_path, "none", drain=0)
    with ThreadPoolExecutor() as both:
        processes = [both.submit(start) for _ in range(2)]
    try:
        printed = processes[0].result().printed  # one file for both
        assert (printed.count("API key"), printed.count("Traceback")) == (1, 0)
    finally:
        for process in processes:
            if process.exception() is None:
                process.result().kill()


@pytest.mark.parametrize("command", ["export", "createkey ada", "replay"])
def test_a_command_over_nothing_says_one_sentence(tmp_path, command):
    said = subprocess.run(
        [sys.executable, "manage.py", *command.split()],
        env={**os.environ, "LLMSITE_DATA": str(tmp_path)},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (said.returncode, said.stdout) == (1, "")
    assert "`manage.py migrate` prepares it" in said.stderr
    assert "Traceback" not in said.stderr

"""`manage.py` as a process: its streams and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MANAGE = Path(__file__).resolve().parents[1] / "manage.py"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_needs_no_standard_streams(tmp_path, closed):
    """Some supervisors start a service without them."""
    file = tmp_path / "numbers"
    code = f"open({str(file)!r}, 'w').write(str([one.fileno() for one in STREAMS]))"
    streams = "import sys; STREAMS = (sys.stdin, sys.stdout, sys.stderr); sys.stderr.isatty()"

    line = f'exec "$@" {closed}'
    command = [sys.executable, str(MANAGE), "shell", "-c", f"{streams}; print(7); {code}"]
    done = subprocess.run(["sh", "-c", line, "sh", *command], timeout=120, check=False)

    assert done.returncode == 0
    assert file.read_text() == "[0, 1, 2]"


def test_ctrl_c_ends_a_command_without_a_traceback():
    done = subprocess.run(
        [sys.executable, str(MANAGE), "shell", "-c", "raise KeyboardInterrupt"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stderr) == (130, "")

"""ChatGLM by a name of the hub: from the mirror in HF_ENDPOINT, and then without a network."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from modelhost import checkpoints
from modelhost.progress import Progress, Snapshot
from modelhost.types import ModelSpec
from tests.modelhost.forced import SHARED, TINY

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference checkpoint of ChatGLM3 is not beside the repository"
)

NAME = "THUDM/chatglm3-tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Mirror(BaseHTTPRequestHandler):
    """The little of the hub's protocol that a download needs, over one folder."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        file = TINY / path.rpartition("/")[2]
        if path.startswith(f"/api/models/{NAME}/tree/"):
            self._send(json.dumps(_tree()).encode(), body=body)
        elif path.startswith(f"/api/models/{NAME}"):
            self._send(json.dumps({"id": NAME, "sha": COMMIT}).encode(), body=body)
        elif path.startswith(f"/{NAME}/resolve/") and file.is_file():
            self._send(file.read_bytes(), body=body)
        else:
            self.send_error(404)

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _tree() -> list[dict[str, object]]:
    """The folder, and the code that every release of ChatGLM3 brings."""
    sizes = {file.name: file.stat().st_size for file in TINY.iterdir()}
    return [
        {"type": "file", "path": name, "size": size, "oid": name}
        for name, size in (sizes | {"modeling_chatglm.py": 1}).items()
    ]


@pytest.fixture
def mirror():
    Mirror.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def inspect(cache: Path, **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "modelhost", "inspect", "--model", NAME, "--device", "cpu"],
        env=os.environ | {"HF_HOME": str(cache)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_mirror_is_asked_once_and_for_no_code(mirror, tmp_path):
    fetched = inspect(tmp_path, HF_ENDPOINT=mirror)
    asked = list(Mirror.asked)
    again = inspect(tmp_path, HF_ENDPOINT=mirror)
    without_network = inspect(tmp_path, HF_HUB_OFFLINE="1")

    assert fetched["name"] == NAME
    assert fetched["revision"] == COMMIT[:12]
    assert fetched["parameters"] == 4_191_136
    assert any(path.endswith("tokenizer.model") for path in asked)
    assert not any(path.endswith(".py") for path in asked)
    assert again == without_network == fetched
    assert Mirror.asked == asked, "a complete copy is not asked for again"


def test_a_copy_that_lacks_a_file_is_completed(mirror, tmp_path):
    inspect(tmp_path, HF_ENDPOINT=mirror)
    [tokenizer] = tmp_path.glob("hub/models--*/snapshots/*/tokenizer.model")
    content = tokenizer.read_bytes()
    tokenizer.unlink()
    inspect(tmp_path, HF_ENDPOINT=mirror)

    assert tokenizer.read_bytes() == content


def test_a_download_is_counted_in_files(mirror, tmp_path, monkeypatch):
    from_mirror = functools.partial(
        huggingface_hub.snapshot_download, endpoint=mirror, cache_dir=tmp_path
    )
    monkeypatch.setattr(checkpoints, "snapshot_download", from_mirror)
    progress = Progress()
    checkpoints.locate(ModelSpec(model=NAME), progress)

    files = len(list(TINY.iterdir()))
    assert progress.snapshot == Snapshot(f"Downloading {NAME}", files, files, "file")

"""The programs under examples/, run as somebody runs them who copied one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import playwright

from tests.e2e.places import ROOT

FOLDER = ROOT / "examples"
LANGUAGES = ["python", "java", "go", "javascript"]


class Missing(Exception):
    """A tool is not installed; the message says which."""


@dataclass(frozen=True)
class Done:
    """How a program ended, and what it wrote."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Program:
    """command: as its first lines say it.

    quick: the same, compiled once, and with a patience of 3 s for a connection that says nothing.
    """

    command: list[str]
    quick: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(
        self, *arguments: str, url: str, key: str, command: list[str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Begin to ask."""
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            **self.environment,
            "LC_ALL": "C.UTF-8",
            "LLMSITE_URL": url,
            "LLMSITE_KEY": key,
        }
        return subprocess.Popen(
            [*(command or self.quick), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=FOLDER,
            env=environment,
            bufsize=0,  # what a test has not read yet is still there for `ended`
        )

    def run(self, *arguments: str, url: str, key: str, command: list[str] | None = None) -> Done:
        """Ask, and wait for its end."""
        process = self.start(*arguments, url=url, key=key, command=command)
        try:
            return ended(process)
        finally:
            leave(process)


def ended(process: subprocess.Popen[bytes], already: bytes = b"") -> Done:
    """The end of a program, of whose output so much was read before."""
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, (already + out).decode(), err.decode())


def leave(process: subprocess.Popen[bytes]) -> None:
    """Whatever it was doing."""
    process.kill()
    process.communicate()


def program(language: str, folder: Path) -> Program:
    """One that can be run; what is compiled lies in the folder. Raises Missing."""
    return {"python": python, "java": java, "go": go, "javascript": javascript}[language](folder)


def python(folder: Path) -> Program:
    return Program([sys.executable, "ask.py"], [sys.executable, impatient("ask.py", folder)])


def java(folder: Path) -> Program:
    if not (shutil.which("java") and shutil.which("javac")):
        raise Missing("no JDK is installed (java, javac)")
    source = impatient("Ask.java", folder)
    compile_with(["javac", "-Xlint:all,-serial", "-Werror", "-d", str(folder), source], {})
    quick = ["java", "-XX:TieredStopAtLevel=1", "-cp", str(folder), "Ask"]
    return Program(["java", "Ask.java"], quick)


def go(folder: Path) -> Program:
    if not shutil.which("go"):
        raise Missing("no Go is installed")
    settings = {"GOCACHE": str(folder / "cache"), "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
    built, source = str(folder / "ask"), impatient("ask.go", folder)
    compile_with(["go", "build", "-o", built, source], settings)
    return Program(["go", "run", "ask.go"], [built], settings)


def javascript(folder: Path) -> Program:
    brought = Path(playwright.__file__).parent / "driver" / "node"
    node = shutil.which("node") or str(brought)
    if not Path(node).exists():
        raise Missing("no Node is installed, and playwright brought none")
    return Program([node, "ask.mjs"], [node, impatient("ask.mjs", folder)])


def impatient(name: str, folder: Path) -> str:
    """A copy in this folder that does not wait three heartbeats for a dead connection."""
    text, made = re.subn(r"(?i)(\bsilence\s+= )45", r"\g<1>3", (FOLDER / name).read_text())
    assert made == 1
    (folder / name).write_text(text)
    return str(folder / name)


def compile_with(command: list[str], environment: Mapping[str, str]) -> None:
    """Without a warning."""
    done = subprocess.run(
        command,
        cwd=FOLDER,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr

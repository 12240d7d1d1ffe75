"""What numba compiles: kept where that can be, and compiled whatever became of what was kept."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
import pytest
from numba import int64, types

from modelhost.cpu.compiling import compiled

SOURCE = "def nothing(data): pass"
INDEX, CODE = "nbi", "nbc"  # numba's files for one function


def built(function: Callable) -> numba.core.ccallback.CFunc:
    return compiled(function, types.void(types.CPointer(int64)), {})


def defined(source: str, file: str = "<nowhere>") -> Callable:
    names: dict = {"__name__": "somewhere"}
    exec(compile(source, file, "exec"), names)
    return names.popitem()[1]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where numba keeps what it compiles."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def nothing(tmp_path, folder) -> Callable:
    """A function with a file, so that it can be kept."""
    file = tmp_path / "somewhere.py"
    file.write_text(SOURCE)
    return defined(SOURCE, str(file))


def test_what_an_earlier_start_compiled_is_loaded(nothing):
    assert [built(nothing).cache_hits for _ in range(2)] == [0, 1]


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "nonsense": lambda data: b"\x80\x05]." + data,  # a whole pickle, of something else
}


@pytest.mark.parametrize("kind", [INDEX, CODE])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_compiled_anew_and_replaced(nothing, folder, kind, damage):
    built(nothing)
    [file] = folder.rglob(f"*.{kind}")
    file.write_bytes(damage(file.read_bytes()))

    again = built(nothing)

    assert (bool(again.address), again.cache_hits) == (True, 0)
    assert built(nothing).cache_hits == 1


def test_on_a_full_disk_it_is_compiled_all_the_same(nothing, folder):
    with no_file_grows():
        assert built(nothing).address

    assert not list(folder.rglob(f"*.{INDEX}"))


@contextmanager
def no_file_grows() -> Iterator[None]:
    """A write to a file fails inside, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_read_does_not_matter(nothing, folder):
    built(nothing)
    [file] = folder.rglob(f"*.{INDEX}")
    file.unlink()
    file.mkdir()

    assert built(nothing).address


def test_a_kernel_that_can_be_kept_nowhere_is_compiled_all_the_same(caplog):
    caplog.set_level("INFO")
    assert built(defined(SOURCE)).address

    [said] = caplog.records  # one line, nothing is broken
    assert (said.levelname, said.exc_info) == ("INFO", None)


def test_what_numba_cannot_compile_cannot_be_imported():
    with pytest.raises(ImportError, match="cannot compile nonsense"):
        built(defined("def nonsense(data): return data.of_another_version"))

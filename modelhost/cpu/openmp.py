"""Compiled kernels in OpenMP's threads, the same that PyTorch computes with.

OpenMP's threads spin while they wait for work, so those of another library would compete with them
for the processors. So PyTorch's own OpenMP library is asked, by the function that compilers call
for a parallel region (GNU's libgomp ABI, which Intel's and LLVM's libraries have as well).
"""

from __future__ import annotations

import ctypes
import logging
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

logger = logging.getLogger(__name__)

# Where PyTorch's own code found its OpenMP library: among the global symbols, if one was preloaded,
# else among its dependencies.
SCOPES = (None, torch._C.__file__)
ALONE = 50_000  # numbers; for fewer it pays neither to start threads nor to release the GIL

Argument = int | float | torch.Tensor | None


class Kernel:
    """A compiled function over items that threads take one by one; see modelhost.cpu.kernels."""

    def __init__(self, compiled: Any) -> None:
        self._address: int = compiled.address
        self._with_gil = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self._address)
        self._without_gil = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._address)

    def __call__(self, *arguments: Argument, work: int) -> None:
        """Compute all items. work: about how many numbers are read.

        Raises ValueError for a tensor whose memory is not what its shape says.
        """
        numbers = (ctypes.c_int64 * (1 + len(arguments)))(0, *map(_as_number, arguments))
        if work < ALONE:
            self._with_gil(numbers)
            return
        threads = torch.get_num_threads()
        together = parallel() if threads > 1 else None
        if together is None:
            self._without_gil(numbers)
        else:
            together(self._address, numbers, threads, 0)


def _as_number(argument: Argument) -> int:
    """What fits into 64 bits: a whole number, a float32's bits, an address."""
    if isinstance(argument, torch.Tensor):
        if argument.dtype not in (torch.float32, torch.int64) or not argument.is_contiguous():
            raise ValueError(f"a kernel cannot read {argument.dtype} {argument.stride()}")
        return argument.data_ptr()
    if isinstance(argument, float):
        return int.from_bytes(struct.pack("<f", argument), "little")
    return argument or 0


@cache
def parallel() -> Callable[[int, Any, int, int], None] | None:
    """Start a function, with a pointer, in so many threads and wait for all; None if nobody can.

    A process may hold several OpenMP libraries, since sentencepiece and others bring their own. Two
    that compute in turn make a token three to nine times as slow: the threads of each spin on the
    processors that the other's need. So it is found as the linker does, and not by a file's name.
    """
    for scope in SCOPES:
        try:
            function: Any = ctypes.CDLL(scope).GOMP_parallel
        except (AttributeError, OSError):
            continue
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    logger.info("kernels run in one thread: PyTorch's OpenMP library was not found")
    return None

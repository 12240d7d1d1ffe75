"""FBGEMM's product with a weight in float16, in parts that threads take one by one.

PyTorch's operator gives every thread its share of the columns beforehand. If one of them loses its
processor for a moment, to a request or to the recorder, all others wait for it; here they take over
what it would have computed. It is the same function with the same bits, and calling it
costs less; see docs/decisions/0033.

The functions are FBGEMM's in PyTorch's library (https://github.com/pytorch/FBGEMM,
`FbgemmFPCommon.h` and `FbgemmPackMatrixB.h`), found by names that contain their arguments' types.
What they keep in memory is known for one version of PyTorch; with any other there are no parts.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from functools import cache
from typing import Any

import torch
from llvmlite import ir
from numba import carray, int64, types, uint64
from numba.extending import intrinsic

from modelhost.cpu.kernels import kernel, take
from modelhost.cpu.openmp import Kernel

logger = logging.getLogger(__name__)

VERSION = "2.13."
PACK = "_ZN6fbgemm17PackedGemmMatrixBItNS_13TypeConverterItEEEC1ENS_11matrix_op_tEiifPKfi"
MULTIPLY = (
    "_ZN6fbgemm18cblas_gemm_computeItEEvNS_11matrix_op_tEiPKf"
    "RKNS_17PackedGemmMatrixBIT_NS_13TypeConverterIS5_EEEEfPfii"
)
FREE = "_ZN6fbgemm17fbgemmAlignedFreeEPv"

AS_IT_IS, TRANSPOSED = 0, 1
ROWS_OF_A_BLOCK = 512  # FBGEMM's own default
EACH = 3  # parts for a thread: fewer are divided worse, and each reads the rows anew


class _Matrix(ctypes.Structure):
    """FBGEMM's PackedGemmMatrixB."""

    _fields_ = (
        ("inputs", ctypes.c_int),
        ("outputs", ctypes.c_int),
        ("block_rows", ctypes.c_int),
        ("last_block_rows", ctypes.c_int),
        ("block_columns", ctypes.c_int),
        ("blocks_down", ctypes.c_int),
        ("blocks_across", ctypes.c_int),
        ("size", ctypes.c_uint64),
        ("blocks_of_a_kernel", ctypes.c_int),
        ("numbers", ctypes.c_void_p),
        ("flags", ctypes.c_char * 64),  # two bytes, and room
    )


class Parts:
    """A packed weight: (n, inputs) → (n, outputs), float32. `available` must have said so."""

    def __init__(self, weight: torch.Tensor) -> None:
        """weight: (outputs, inputs), of numbers that float16 holds."""
        weight = weight.float().contiguous()
        self._outputs, self._inputs = weight.shape
        self._matrix = _Matrix()
        _library()[PACK](
            ctypes.byref(self._matrix),
            TRANSPOSED,
            self._inputs,
            self._outputs,
            1.0,
            weight.data_ptr(),
            ROWS_OF_A_BLOCK,
        )
        free = weakref.finalize(self, _library()[FREE], self._matrix.numbers)
        free.atexit = False  # the memory goes with the process
        self._at = ctypes.addressof(self._matrix)
        self._most_parts = max(1, self._outputs // self._matrix.block_columns)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, inputs) → (n, outputs)."""
        count, threads = rows.shape[0], torch.get_num_threads()
        result = torch.empty(count, self._outputs, dtype=torch.float32, device="cpu")
        _MULTIPLY(
            _address(),
            self._at,
            min(EACH * threads, self._most_parts) if threads > 1 else 1,
            count,
            rows.contiguous(),
            result,
            work=count * self._inputs * self._outputs,
        )
        return result


@cache
def available() -> bool:
    """Whether this PyTorch has the functions, and they compute what its operator does."""
    if not torch.__version__.startswith(VERSION):
        return False
    try:
        _library()
    except (AttributeError, OSError) as error:
        logger.info("products are divided beforehand: %s", error)
        return False
    return _computes_the_same()


@cache
def _library() -> dict[str, Any]:
    """Raises AttributeError or OSError where there are no such functions."""
    # Looks among all that PyTorch's own module depends on.
    library: Any = ctypes.CDLL(torch._C.__file__)
    functions = {name: library[name] for name in (PACK, MULTIPLY, FREE)}
    number, pointer = ctypes.c_int, ctypes.c_void_p
    functions[PACK].argtypes = [
        pointer, number, number, number, ctypes.c_float, pointer, number,
    ]  # fmt: skip
    functions[FREE].argtypes = [pointer]
    for function in functions.values():
        function.restype = None
    return functions


@cache
def _address() -> int:
    return ctypes.cast(_library()[MULTIPLY], ctypes.c_void_p).value or 0


def _computes_the_same() -> bool:
    """To the bit, with columns and inputs that fill their blocks and that do not."""
    operators: Any = torch.ops.quantized
    for outputs, inputs in ((64, 512), (200, 600)):
        weight = torch.arange(outputs * inputs * 1.0).cos().view(outputs, inputs).half().float()
        rows = torch.arange(7.0 * inputs).sin().view(7, inputs)
        parts = Parts(weight)
        operator = operators.linear_dynamic_fp16(rows, operators.linear_prepack_fp16(weight, None))
        if not torch.equal(parts(rows), operator):
            logger.info("products are divided beforehand: in parts they are others")
            return False
    return True


@intrinsic
def _multiply(
    _: Any, address: Any, rows: Any, a: Any, packed: Any, c: Any, at: Any, of: Any
) -> Any:
    """Call FBGEMM's function there for some columns."""

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        number, pointer, real = ir.IntType(32), ir.IntType(64), ir.FloatType()
        kind = ir.FunctionType(
            ir.VoidType(), [number, number, pointer, pointer, real, pointer, number, number]
        )
        where, count, first, matrix, result, part, parts = values
        builder.call(
            builder.inttoptr(where, kind.as_pointer()),
            [
                ir.Constant(number, AS_IT_IS),
                builder.trunc(count, number),
                first,
                matrix,
                ir.Constant(real, 0.0),  # of what is in the result already
                result,
                builder.trunc(part, number),
                builder.trunc(parts, number),
            ],
        )
        return context.get_dummy_value()

    return types.void(*[int64] * 7), generate


# What numba kept of it counts as long as this file is unchanged, whatever becomes of `take`.
@kernel
def multiply(data: Any) -> None:
    """An item is a part of the columns."""
    numbers = carray(data, 7)
    part = take(numbers)
    while part < uint64(numbers[3]):
        _multiply(
            numbers[1], numbers[4], numbers[5], numbers[2], numbers[6], int64(part), numbers[3]
        )
        part = take(numbers)


_MULTIPLY = Kernel(multiply)

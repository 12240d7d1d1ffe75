"""What a decoder's step on a CPU computes between its products, compiled by numba.

PyTorch has operators for it, some forty for a layer, and for one stream calling them takes as
long as reading the weights. Its attention wants keys and values in one piece, so a cache with
pages is copied for every token; here they are read where they are. See docs/decisions/0022.

A kernel is a C function of one pointer to 64-bit numbers: sizes, bits of a float, addresses of
tensors, in the order in which its first lines read them. `modelhost.cpu.openmp` calls it in several
threads. The number in front of all counts the items that were taken: a thread takes the next one
until none is left. What is computed of an item depends on nothing else, so a row is the same in
any company.

Indices are unsigned: for a signed one numba checks whether it counts from the end. All that these
kernels call is in this file: numba takes a kept kernel for valid while its own file is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
from llvmlite import ir
from numba import carray, float32, int32, int64, njit, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from modelhost.cpu import compiling

# Sums in any order, which vectors need. NaN stays NaN.
OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "error_model": "numpy",
}
SOME = 1 << 40  # rows of a tensor whose length no kernel needs: none reads past its end

LOG2_E = float32(1.44269504)
LN_2_HIGH = float32(0.693359375)  # of few bits: exact times a whole number
LN_2_LOW = float32(-2.12194440e-4)  # the rest of it
LOWEST = float32(-87.0)  # its exponential is nearly the smallest that float32 holds well


# What numba's own language lacks.


@intrinsic
def _floats(_: Any, address: Any) -> Any:
    return types.CPointer(float32)(address), _as_pointer


@intrinsic
def _integers(_: Any, address: Any) -> Any:
    return types.CPointer(int64)(address), _as_pointer


def _as_pointer(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    return builder.inttoptr(values[0], context.get_value_type(signature.return_type))


@intrinsic
def take(_: Any, numbers: Any) -> Any:
    """The next item that no thread has taken."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return uint64(numbers), generate


@intrinsic
def _as_float(_: Any, bits: Any) -> Any:
    """The float32 that has these 32 bits."""

    def generate(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.FloatType())

    return float32(bits), generate


def kernel(function: Callable[[Any], None]) -> Any:
    """Compile, or load what an earlier process compiled. Raises ImportError if numba cannot."""
    return compiling.compiled(function, types.void(types.CPointer(int64)), OPTIONS)


# Of one row.


@njit(**OPTIONS)
def _exp(x: Any) -> Any:
    """Of a number that is not positive, with the polynomial of Moshier's Cephes library."""
    if x < LOWEST:
        return float32(0)
    power = int32(x * LOG2_E - float32(0.5))  # cut off towards zero: the nearest
    rest = x - float32(power) * LN_2_HIGH - float32(power) * LN_2_LOW
    total = float32(1.9875691500e-4)
    total = total * rest + float32(1.3981999507e-3)
    total = total * rest + float32(8.3334519073e-3)
    total = total * rest + float32(4.1665795894e-2)
    total = total * rest + float32(1.6666665459e-1)
    total = total * rest + float32(5.0000001201e-1)
    near_one = total * rest * rest + rest + float32(1)
    return near_one * _as_float(int32((power + int32(127)) << int32(23)))


@njit(**OPTIONS)
def _norm(row: Any, weight: Any, epsilon: Any, result: Any) -> None:
    squares = float32(0)
    for one in row:
        squares += one * one
    scale = float32(1) / numpy.sqrt(squares / float32(row.shape[0]) + epsilon)
    for at in range(uint64(row.shape[0])):
        result[at] = row[at] * scale * weight[at]


@njit(**OPTIONS)
def _turn(head: Any, cos: Any, sin: Any, apart: Any, step: Any) -> None:
    """Each pair of numbers in place: `apart` from one another, `step` from pair to pair."""
    for at in range(uint64(cos.shape[0])):
        first, second = at * step, at * step + apart
        x, y = head[first], head[second]
        head[first] = x * cos[at] - y * sin[at]
        head[second] = y * cos[at] + x * sin[at]


@njit(**OPTIONS)
def _swiglu(both: Any, result: Any) -> None:
    size = uint64(result.shape[0])
    for at in range(size):
        gate = both[at]
        small = _exp(-abs(gate))
        sigmoid = (small if gate < float32(0) else float32(1)) / (float32(1) + small)
        result[at] = gate * sigmoid * both[size + at]


@njit(**OPTIONS)
def _place(read: Any, at: Any) -> Any:
    """Where a key is; past the last one, where the last one is."""
    return uint64(read[min(at, uint64(read.shape[0] - 1))])


@njit(**OPTIONS)
def _scores(query: Any, keys: Any, read: Any, group: Any, scaling: Any, scores: Any) -> None:
    """Heads with their group's keys, four at a time: for one key a head is short."""
    for at in range(uint64(0), uint64(read.shape[0]), uint64(4)):
        key_0, key_1 = keys[_place(read, at), group], keys[_place(read, at + uint64(1)), group]
        key_2 = keys[_place(read, at + uint64(2)), group]
        key_3 = keys[_place(read, at + uint64(3)), group]
        for head in range(uint64(query.shape[0])):
            own = query[head]
            sum_0 = sum_1 = sum_2 = sum_3 = float32(0)
            for d in range(uint64(query.shape[1])):
                sum_0 += own[d] * key_0[d]
                sum_1 += own[d] * key_1[d]
                sum_2 += own[d] * key_2[d]
                sum_3 += own[d] * key_3[d]
            scores[head, at] = sum_0 * scaling
            scores[head, at + uint64(1)] = sum_1 * scaling
            scores[head, at + uint64(2)] = sum_2 * scaling
            scores[head, at + uint64(3)] = sum_3 * scaling


@njit(**OPTIONS)
def _softmax(scores: Any, count: Any) -> None:
    """Softmax of the first ones, zeros behind them."""
    largest = scores[0]
    for at in range(count):
        largest = max(largest, scores[at])
    total = float32(0)
    for at in range(count):
        scores[at] = _exp(scores[at] - largest)
        total += scores[at]
    for at in range(count):
        scores[at] /= total
    for at in range(count, uint64(scores.shape[0])):
        scores[at] = float32(0)


@njit(**OPTIONS)
def _weighted_sum(values: Any, read: Any, group: Any, shares: Any, result: Any) -> None:
    """The values' sum, each times its share, for the heads of a group."""
    result[:] = float32(0)
    for at in range(uint64(0), uint64(read.shape[0]), uint64(4)):
        value_0, value_1 = (
            values[_place(read, at), group],
            values[_place(read, at + uint64(1)), group],
        )
        value_2 = values[_place(read, at + uint64(2)), group]
        value_3 = values[_place(read, at + uint64(3)), group]
        for head in range(uint64(result.shape[0])):
            own = result[head]
            share_0, share_1 = shares[head, at], shares[head, at + uint64(1)]
            share_2, share_3 = shares[head, at + uint64(2)], shares[head, at + uint64(3)]
            for d in range(uint64(result.shape[1])):
                own[d] += (
                    share_0 * value_0[d]
                    + share_1 * value_1[d]
                    + share_2 * value_2[d]
                    + share_3 * value_3[d]
                )


# Kernels. An item is a row, and a group of heads for attention.


@kernel
def add_and_norm(data: Any) -> None:
    """Root mean square norm (Zhang and Sennrich, 2019), after a sum that stays in `hidden`."""
    numbers = carray(data, 8)
    rows, size, epsilon = numbers[1], numbers[2], _as_float(int32(numbers[3]))
    weight = carray(_floats(numbers[4]), (size,))
    hidden = carray(_floats(numbers[5]), (rows, size))
    added = carray(_floats(numbers[6]), (rows, size))  # or nothing
    result = carray(_floats(numbers[7]), (rows, size))
    row = take(numbers)
    while row < uint64(rows):
        if numbers[6]:
            for at in range(uint64(size)):
                hidden[row, at] += added[row, at]
        _norm(hidden[row], weight, epsilon, result[row])
        row = take(numbers)


@kernel
def turn_and_store(data: Any) -> None:
    """Positions as turns (Su et al., "RoFormer", 2021); keys and values to their places."""
    numbers = carray(data, 14)
    rows, heads, groups, dim = numbers[1], numbers[2], numbers[3], numbers[4]
    pairs, apart, step = numbers[5], uint64(numbers[6]), uint64(numbers[7])
    every = carray(_floats(numbers[8]), (rows, heads + 2 * groups, dim))
    cos = carray(_floats(numbers[9]), (rows, pairs))
    sin = carray(_floats(numbers[10]), (rows, pairs))
    write = carray(_integers(numbers[11]), (rows,))
    keys = carray(_floats(numbers[12]), (SOME, groups, dim))
    values = carray(_floats(numbers[13]), (SOME, groups, dim))
    row = take(numbers)
    while row < uint64(rows):
        own, place = every[row], uint64(write[row])
        for head in range(uint64(heads + groups)):
            _turn(own[head], cos[row], sin[row], apart, step)
        keys[place] = own[uint64(heads) : uint64(heads + groups)]
        values[place] = own[uint64(heads + groups) :]
        row = take(numbers)


@kernel
def attend(data: Any) -> None:
    """Attention of tokens that are alone in their request, to the keys that it has in the cache."""
    numbers = carray(data, 13)
    tokens, heads, groups, dim = numbers[1], numbers[2], numbers[3], numbers[4]
    most, scaling = numbers[5], _as_float(int32(numbers[6]))
    which = carray(_integers(numbers[7]), (tokens, 3))  # a row, its first key and their number
    every = carray(_floats(numbers[8]), (SOME, heads + 2 * groups, dim))
    read = carray(_integers(numbers[9]), (SOME,))
    keys = carray(_floats(numbers[10]), (SOME, groups, dim))
    values = carray(_floats(numbers[11]), (SOME, groups, dim))
    result = carray(_floats(numbers[12]), (SOME, heads, dim))
    each = uint64(heads // groups)
    scores = numpy.empty((each, uint64(most + 3)), numpy.float32)
    item = take(numbers)
    while item < uint64(tokens * groups):
        token, group = item // uint64(groups), item % uint64(groups)
        row, first, count = uint64(which[token, 0]), which[token, 1], which[token, 2]
        own = read[first : first + count]
        part = slice(group * each, group * each + each)
        _scores(every[row, part], keys, own, group, scaling, scores)
        for head in range(each):
            _softmax(scores[head, : (count + 3) // 4 * 4], uint64(count))
        _weighted_sum(values, own, group, scores, result[row, part])
        item = take(numbers)


@kernel
def gate(data: Any) -> None:
    """SwiGLU (Shazeer, 2020): a gate's numbers, and behind them what it lets through."""
    numbers = carray(data, 5)
    rows, size = numbers[1], numbers[2]
    both = carray(_floats(numbers[3]), (rows, 2 * size))
    result = carray(_floats(numbers[4]), (rows, size))
    row = take(numbers)
    while row < uint64(rows):
        _swiglu(both[row], result[row])
        row = take(numbers)

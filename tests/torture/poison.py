"""Requests that have killed engines, or looked as if they could."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

NAN, INFINITY = float("nan"), float("inf")
GOOD = {"prompt": "the cat", "max_tokens": 3}
LONGER_THAN_THE_CONTEXT = "the dog and the hat " * 300

# Seen to end the engine's thread, or to be answered with nonsense, when nothing checks them.
KILLERS: list[dict[str, Any]] = [
    {"top_k": 10**6},
    {"top_k": 10**6, "temperature": 1.0},
    {"top_k": -1},
    *({"temperature": value} for value in (0.0, NAN, 1e-45, -1.0, INFINITY, 1e308)),
    *({"temperature": 1.0, "top_p": value} for value in (NAN, 0.0, 1e-45, -1.0, 2.0)),
    {"prompt": ""},
    {"prompt": LONGER_THAN_THE_CONTEXT},
    {"prompt": "the cat " * 30, "max_tokens": 250},
    *({"max_tokens": value} for value in (0, -1, 512, 513, 2**31, 2**63, 10**30)),
    *({"seed": value} for value in (-1, 2**63, 2**64, -(2**63), 10**30)),
    {"stop": [""]},
    {"stop": "the"},
]

NUMBERS: list[Any] = [
    *(0, -1, 1, 2, 511, 512, 513, 2**31, 2**32, 2**63, 2**64, 10**40),
    *(0.0, -0.0, -1.0, 0.5, 1.5, 1e-45, 5e-324, 1e-300, 1e308, NAN, INFINITY, -INFINITY),
    *("1", "", "nan", None, True, False, [], [1], {}, {"a": 1}),
]
TEXTS: list[Any] = [
    *(" ", "\n", "\0", "a\0b", "\ud800", "\udc00\ud800", "👋🏽", "\u202e", "x" * 100_000),
    *("<|im_end|>", "<|endoftext|>", "<|im_start|>system\nno<|im_end|>", "<tool_call>"),
    *(None, 5, 1.5, True, [], ["a"], {}, {"a": "b"}, [[]], NAN),
]
STOPS: list[Any] = ["", [], [""], ["a"] * 17, ["\0"], [None], [5], 5, {}, "x" * 9999, ["\ud800"]]
HISTORIES: list[Any] = [
    *(None, [], {}, "no", [None], [[]], [{}], [{"role": "user"}], [{"content": "x"}]),
    [{"role": "nobody", "content": "x"}],
    [{"role": "assistant", "content": None}],
    [{"role": "user", "content": {"a": 1}}],
    [{"role": "tool", "content": "x", "tool_call_id": "y"}],
    [{"role": "user", "content": LONGER_THAN_THE_CONTEXT}],
    [{"role": "system", "content": LONGER_THAN_THE_CONTEXT}],
    [{"role": "user", "content": "x"}] * 30,
]
FIELDS = {
    **dict.fromkeys(["max_tokens", "temperature", "top_p", "top_k", "seed"], NUMBERS),
    "prompt": TEXTS,
    "stop": STOPS,
    "history": HISTORIES,
    "stream": ["yes", 1, None, [], {}],
    "on_disconnect": ["maybe", 1, None, [], {}],
}

odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(NUMBERS + TEXTS + STOPS + HISTORIES),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    ),
)
usual = st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=40), "max_tokens": st.integers(1, 9)},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.01, 1),
        "top_k": st.integers(0, 300),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "stop": st.lists(st.text(min_size=1, max_size=5), max_size=3),
        "stream": st.booleans(),
    },
)
odd_names = st.sampled_from([*FIELDS, "messages", "model", "conversation"]) | st.text(max_size=8)
odd = st.just({}) | st.dictionaries(odd_names, odd_values, max_size=2)
bodies = st.builds(lambda body, changes: {**body, **changes}, usual, odd)


@dataclass(frozen=True)
class Route:
    """A way to ask. wire: whether it speaks OpenAI's, where prompt and history are messages."""

    path: str
    method: str = "POST"
    wire: bool = False

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Such a body in this route's own form, as arguments for a client."""
        if self.method == "GET":
            texts = {name: as_parameter(value) for name, value in body.items()}
            return {"method": "GET", "url": self.path, "params": texts}
        if self.wire and "messages" not in body:
            body = {**body, "model": "demo", "messages": messages(body)}
            body = {name: body[name] for name in body if name not in ("prompt", "history")}
        return {
            "method": "POST",
            "url": self.path,
            "content": json.dumps(body),  # NaN and lone surrogates as clients write them
            "headers": {"Content-Type": "application/json"},
        }


def every_field() -> Iterator[dict[str, Any]]:
    """Each field with each of its odd values, the others as they should be."""
    for name, values in FIELDS.items():
        for value in values:
            yield {name: value}


def messages(body: dict[str, Any]) -> Any:
    """The turns as OpenAI's clients write them."""
    history = body.get("history") or []
    before = history if isinstance(history, list) else [history]
    return [*before, {"role": "user", "content": body.get("prompt")}]


def as_parameter(value: Any) -> str:
    """A value in a query: what is no text as JSON, and only what UTF-8 can write."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()[:4000]

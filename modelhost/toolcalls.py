"""Tool calls as models write them, read without ever evaluating anything.

A filter stands between the decoder and the reader: it lets plain text through at once
and keeps a call to itself, which becomes data when the answer is over.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from modelhost.types import ToolCall

FENCE = re.compile(r"```(?:python)?\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
DEEPEST = 100  # levels of lists and objects, one in the other


class ChatGLMAnswer:
    """ChatGLM3's answer: a first line that says what it is, then the content.

    A blank line means plain text; a tool's name means a call. Text is held back only while
    it may still be that line, so without tools no visible text is later than the line itself.
    """

    def __init__(self, tools: Collection[str] = ()) -> None:
        self._tools = tools
        self._held: str | None = ""  # None: the line is over and the content is plain
        self._name = ""

    def feed(self, text: str) -> str:
        """The visible part of what came."""
        if self._held is None:
            return text
        self._held += text
        if self._name:
            return ""
        line, newline, rest = self._held.lstrip().partition("\n")
        name = line.strip()
        if newline and name in self._tools:
            self._name, self._held = name, rest
            return ""
        if not name or (not newline and any(tool.startswith(name) for tool in self._tools)):
            return ""
        visible, self._held = self._held.lstrip(), None
        return visible

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """Text that was held back after all, and the call, once the answer is over."""
        held, self._held = self._held or "", None
        if not self._name:
            return held.lstrip(), ()
        call = parse_python_call(self._name, held)
        return ("", (call,)) if call else (f"{self._name}\n{held}", ())


class TaggedAnswer:
    """Calls as `<tool_call>{"name": …, "arguments": …}</tool_call>` (Hermes, Qwen)."""

    START, END = "<tool_call>", "</tool_call>"

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._calls: list[ToolCall] = []

    def feed(self, text: str) -> str:
        """The visible part of what came."""
        self._held += text
        visible = ""
        while True:
            marker = self.END if self._inside else self.START
            before, found, after = self._held.partition(marker)
            if not found:
                break
            visible += self._call(before) if self._inside else before
            self._held, self._inside = after, not self._inside
        if self._inside:
            return visible
        keep = _overlap(self._held, self.START)
        visible += self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return visible

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """Text that was held back after all, and the calls, once the answer is over."""
        rest = self._call(self._held, end="") if self._inside else self._held
        self._held, self._inside = "", False
        return rest, tuple(self._calls)

    def _call(self, text: str, *, end: str = END) -> str:
        """Keep a readable call; an unreadable one is shown as it was written."""
        call = parse_json_call(text)
        if call is None:
            return f"{self.START}{text}{end}"
        self._calls.append(call)
        return ""


def parse_python_call(name: str, text: str) -> ToolCall | None:
    """`tool_call(city='北京')` inside a fenced block: keywords with literal values only."""
    match = FENCE.search(text)
    code = (match[1] if match else text).strip()
    try:
        call = ast.parse(code, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            return None
        arguments = {
            str(word.arg): ast.literal_eval(word.value) for word in call.keywords if word.arg
        }
    except (SyntaxError, ValueError, TypeError, OverflowError, MemoryError, RecursionError):
        return None
    if len(arguments) != len(call.keywords) or not interchangeable(arguments):
        return None
    # Python's literals are more than JSON's: keys that are no texts, tuples.
    return ToolCall(name, json.loads(json.dumps(arguments)))


def parse_json_call(text: str) -> ToolCall | None:
    """`{"name": …, "arguments": {…}}`."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return None
    arguments = data.get("arguments", data.get("parameters", {}))
    if not isinstance(arguments, dict) or not interchangeable(data):
        return None
    return ToolCall(data["name"], arguments)


def interchangeable(data: Any) -> bool:
    """Whether everybody can store and send it: JSON in UTF-8 (RFC 8259) without the character NUL.

    Python reads more: NaN, halves of surrogate pairs; and PostgreSQL keeps no NUL, and
    what is nested deeper than DEEPEST cannot be written with indents, as a page shows it.
    """
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, TypeError, RecursionError):
        return False
    return "\\u0000" not in text.replace("\\\\", "") and not _is_deep(data)


def _is_deep(data: Any) -> bool:
    level = [data]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _parts(one)]
    return bool(level)


def _parts(data: Any) -> Iterable[Any]:
    if isinstance(data, dict):
        return data.values()
    return data if isinstance(data, list | tuple) else ()


def write_python_call(call: ToolCall) -> str:
    """A call as ChatGLM3 was trained to write it."""
    words = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    return f"```python\ntool_call({words})\n```"


def _overlap(text: str, marker: str) -> int:
    """Length of the longest suffix of the text that is a prefix of the marker."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if marker.startswith(text[-length:]):
            return length
    return 0

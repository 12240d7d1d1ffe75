"""The model host without Django: one JSON object per line in and out.

python -m modelhost render|generate|inspect --model M
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhost import json_lines
from modelhost.errors import LoadFailed, ModelHostError
from modelhost.types import ModelSpec, Rendered

if TYPE_CHECKING:
    from modelhost.engine import Engine
    from modelhost.ticket import Ticket


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 1 when the model or a line was refused."""
    options = parser().parse_args(arguments)
    _speak_utf8()
    spec = ModelSpec(
        model=options.model,
        adapter=options.adapter,
        device=options.device,
        dtype=options.dtype,
        quantize=options.quantize,
        cache_dir=Path(path).expanduser() if (path := os.environ.get("LLMSITE_CACHE")) else None,
        max_requests=sys.maxsize,  # nobody else is here: all lines of one caller may wait
    )
    try:
        return int(options.run(spec))
    except LoadFailed as error:
        print(error, file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m modelhost", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="render|generate|inspect")
    for name, run, text in (
        ("render", render, 'in: {"turns": [...]}; out: {"token_ids": [...], "omitted": [...]}'),
        ("generate", generate, 'in: {"turns": [...]} or {"token_ids": [...]} and sampling fields'),
        ("inspect", inspect, "what the model is and needs, without loading it"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--model", default="demo", help="demo, a folder, or a hub id")
        command.add_argument("--adapter", type=Path, help="folder of a LoRA for a ChatGLM model")
        command.add_argument("--quantize", default="", help="int8 or int4; empty keeps the dtype")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0")
        command.add_argument("--dtype", default="auto", help="auto, fp32, fp16, bf16")
    return top


def render(spec: ModelSpec) -> int:
    """Turns to token ids."""
    from modelhost import loading

    write = loading.renderer(spec)
    return _each_line(lambda request: _rendered(write, request), sys.stdin)


def generate(spec: ModelSpec) -> int:
    """Submit all lines at once, print the answers in their order."""
    engine = _engine(spec)
    try:
        return asyncio.run(_generate_all(engine, list(sys.stdin)))
    finally:
        engine.stop()


def inspect(spec: ModelSpec) -> int:
    """Print the description of a model."""
    from modelhost import loading

    _print(loading.describe(spec).as_json())
    return 0


def _speak_utf8() -> None:
    """JSON is UTF-8 whatever the terminal's language; a stray byte spoils its line only."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "strict")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _engine(spec: ModelSpec) -> Engine:
    from modelhost import loading
    from modelhost.progress import Progress

    return loading.load(spec, Progress(terminal=sys.stderr.isatty()))


def _each_line(answer: Callable[[dict[str, Any]], dict[str, Any]], source: Iterable[str]) -> int:
    failed = False
    for line in _filled(source):
        try:
            _print(answer(json_lines.parse(line)))
        except ModelHostError as error:
            failed = True
            _print({"error": str(error)})
    return int(failed)


def _filled(source: Iterable[str]) -> Iterator[str]:
    return (line for line in source if line.strip())


def _rendered(write: Callable[..., Rendered], request: dict[str, Any]) -> dict[str, Any]:
    rendered = write(json_lines.turns(request), max_tokens=json_lines.max_tokens(request))
    return {"token_ids": rendered.token_ids, "omitted": rendered.omitted}


def _submitted(engine: Engine, request: dict[str, Any]) -> tuple[list[int], Ticket]:
    token_ids = json_lines.token_ids(request)
    if token_ids is None:
        limit = json_lines.max_tokens(request)
        token_ids = engine.render(json_lines.turns(request), max_tokens=limit).token_ids
    choice = json_lines.sampling(request, room=engine.room(len(token_ids)))
    return token_ids, engine.submit(token_ids, choice)


async def _generate_all(engine: Engine, source: Iterable[str]) -> int:
    jobs: list[tuple[list[int], Ticket] | str] = []
    for line in _filled(source):
        try:
            jobs.append(_submitted(engine, json_lines.parse(line)))
        except ModelHostError as error:
            jobs.append(str(error))
    failed = False
    for job in jobs:
        answer = {"error": job} if isinstance(job, str) else await _answer(*job)
        failed = failed or "error" in answer
        _print(answer)
    return int(failed)


async def _answer(prompt_ids: list[int], ticket: Ticket) -> dict[str, Any]:
    pieces = [piece async for piece in ticket]
    finish = ticket.finish
    if finish is None or finish.error:
        return {"error": finish.error if finish else "The answer did not end."}
    texts = [piece.text for piece in pieces if piece.text]
    return {
        "prompt_ids": prompt_ids,
        "token_ids": [token_id for piece in pieces for token_id in piece.token_ids],
        "pieces": texts,
        "text": "".join(texts),
        "finish_reason": finish.reason,
    }


def _print(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())

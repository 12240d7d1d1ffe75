"""The model host without Django: one JSON object per line in and out.

python -m modelhost render|generate|inspect --model M
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from modelhost.errors import LoadFailed, ModelHostError, RequestRefused
from modelhost.types import ModelSpec, Sampling, Turn


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 1 when the model or a line was refused."""
    options = parser().parse_args(arguments)
    spec = ModelSpec(
        model=options.model,
        device=options.device,
        dtype=options.dtype,
        cache_dir=Path(path) if (path := os.environ.get("LLMSITE_CACHE")) else None,
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
        return asyncio.run(_generate_all(engine, list(_requests(sys.stdin))))
    finally:
        engine.stop()


def inspect(spec: ModelSpec) -> int:
    """Print the description of a model."""
    from modelhost import loading

    _print(loading.describe(spec).as_json())
    return 0


def _engine(spec: ModelSpec) -> Any:
    from modelhost.host import Host

    host = Host()
    host.start(spec, terminal=sys.stderr.isatty())
    return host.wait()


def _requests(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            try:
                request = json.loads(line)
            except ValueError as error:
                request = {"error": f"The line is not JSON: {error}"}
            yield request if isinstance(request, dict) else {"error": "The line is no object."}


def _each_line(answer: Any, lines: Iterable[str]) -> int:
    failed = False
    for request in _requests(lines):
        try:
            _print(answer(request))
        except (ModelHostError, ValueError, TypeError, KeyError) as error:
            failed = True
            _print({"error": _sentence(error)})
    return int(failed)


def _rendered(write: Any, request: dict[str, Any]) -> dict[str, Any]:
    if "error" in request:
        raise RequestRefused(request["error"])
    rendered = write(_turns(request), max_tokens=request.get("max_tokens"))
    return {"token_ids": rendered.token_ids, "omitted": rendered.omitted}


def _turns(request: dict[str, Any]) -> list[Turn]:
    return [
        Turn(turn["role"], turn["content"], turn.get("metadata") or "", turn.get("tools"))
        for turn in request["turns"]
    ]


def _submitted(engine: Any, request: dict[str, Any]) -> tuple[list[int], Any]:
    if "error" in request:
        raise RequestRefused(request["error"])
    limit = request.get("max_tokens")
    token_ids = request.get("token_ids")
    if token_ids is None:
        token_ids = engine.render(_turns(request), max_tokens=limit).token_ids
    stop = request.get("stop") or ()
    seed = request.get("seed")
    sampling = Sampling(
        max_tokens=engine.room(len(token_ids)) if limit is None else int(limit),
        temperature=float(request.get("temperature") or 0.0),
        top_p=float(request.get("top_p", 1.0)),
        top_k=int(request.get("top_k") or 0),
        seed=secrets.randbits(63) if seed is None else int(seed),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )
    return token_ids, engine.submit(token_ids, sampling)


async def _generate_all(engine: Any, requests: list[dict[str, Any]]) -> int:
    jobs: list[tuple[list[int], Any] | str] = []
    for request in requests:
        try:
            jobs.append(_submitted(engine, request))
        except (ModelHostError, ValueError, TypeError, KeyError) as error:
            jobs.append(_sentence(error))
    failed = False
    for job in jobs:
        if isinstance(job, str):
            answer: dict[str, Any] = {"error": job}
        else:
            answer = await _answer(*job)
        failed = failed or "error" in answer
        _print(answer)
    return int(failed)


async def _answer(prompt_ids: list[int], ticket: Any) -> dict[str, Any]:
    pieces = [piece async for piece in ticket]
    if ticket.finish.error:
        return {"error": ticket.finish.error}
    texts = [piece.text for piece in pieces if piece.text]
    return {
        "prompt_ids": prompt_ids,
        "token_ids": [token_id for piece in pieces for token_id in piece.token_ids],
        "pieces": texts,
        "text": "".join(texts),
        "finish_reason": ticket.finish.reason,
    }


def _sentence(error: Exception) -> str:
    return f"The field {error} is missing." if isinstance(error, KeyError) else str(error)


def _print(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())

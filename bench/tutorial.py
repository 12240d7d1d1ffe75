"""What a tutorial ends with: one `generate` at a time behind FastAPI, streamed from a thread.

    python -m bench.tutorial <model folder> --port 8000

It stands in `make bench` for what somebody would write in an afternoon.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from threading import Thread
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import StreamingResponse
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer


class Body(BaseModel):
    """A question with what was said before it."""

    messages: list[dict[str, str]]
    max_tokens: int = 512


def application(model: Any, tokenizer: Any) -> FastAPI:
    """The app around one model."""
    app = FastAPI()
    lock = asyncio.Lock()  # one at a time; a lock that blocks threads would use up all of FastAPI's

    async def answer(body: Body) -> AsyncIterator[str]:
        inputs = tokenizer.apply_chat_template(
            body.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        message_id = uuid.uuid4().hex
        async with lock:
            streamer = TextIteratorStreamer(
                tokenizer,
                skip_prompt=True,
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
            options = {"max_new_tokens": body.max_tokens, "do_sample": False, "streamer": streamer}
            Thread(target=model.generate, kwargs={**inputs, **options}).start()
            async for text in iterate_in_threadpool(streamer):
                if text:
                    yield f"data: {json.dumps({'text': text, 'message_id': message_id})}\n\n"

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/chat")
    async def chat(body: Body) -> StreamingResponse:
        return StreamingResponse(answer(body), media_type="text/event-stream")

    return app


def main() -> None:
    """Load and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
    model: Any = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=getattr(torch, options.dtype)
    )
    app = application(model.to(options.device).eval(), tokenizer)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()

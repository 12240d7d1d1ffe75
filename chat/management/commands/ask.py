"""`manage.py ask "…"`: one prompt from the terminal, stored like any other."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat import acceptance
from chat.idempotency import Attempt
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.supervisor import supervisor
from chat.limits.storage import DiskFull
from chat.management.people import parsed_username, person
from chat.model_spec import spec
from chat.questions import Question, SamplingOptions
from chat.wire.parsers import unstorable
from modelhost.errors import ModelHostError
from modelhost.host import host

USERNAME = "terminal"
SAMPLING = ("max_tokens", "temperature", "top_p", "seed")


class Command(BaseCommand):
    """Loads the model in this process and streams the answer to stdout."""

    help = "Ask the model a question and stream the answer."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prompt")
        parser.add_argument("--user", default=USERNAME, help="whose row it becomes")
        parser.add_argument("--max-tokens", type=int)
        parser.add_argument("--temperature", type=float)
        parser.add_argument("--top-p", type=float)
        parser.add_argument("--seed", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["prompt"].strip():
            raise CommandError("The prompt is empty.")
        if problem := unstorable(options["prompt"]):  # the terminal's bytes were no UTF-8
            raise CommandError(problem)
        user, _ = person(parsed_username(options["user"]))
        sampling = SamplingOptions(**{name: options[name] for name in SAMPLING})
        question = Question(content=options["prompt"], surface="ask", sampling=sampling)
        host.start(spec(), terminal=sys.stderr.isatty())
        try:
            host.wait()
            accepted = acceptance.accept(question, Attempt(user))
            asyncio.run(self._print(accepted.live))
        except (ModelHostError, DiskFull) as error:
            raise CommandError(str(error)) from error
        finally:
            supervisor.stop()
            host.unload()

    async def _print(self, live: LiveResponse) -> None:
        async for piece in live.follow():
            self.stdout.write(piece.text, ending="")
            self.stdout.flush()
        self.stdout.write("")
        if live.outcome is None:
            raise CommandError("The process ends before the answer does.")
        if live.outcome.failed:
            raise CommandError(live.outcome.error)

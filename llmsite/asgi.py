"""The ASGI application. Importing it begins to load the model, in a thread."""

from __future__ import annotations

import atexit
import os
import sys
from functools import partial

from llmsite.handler import get_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmsite.settings")
django_application = get_application()

# After Django is set up: these read its settings or its models.
from django.conf import settings  # noqa: E402

from chat.lifecycle.supervisor import supervisor  # noqa: E402
from chat.limits.request_slots import request_slots  # noqa: E402
from chat.model_spec import spec  # noqa: E402
from llmsite.protocols import by_protocol  # noqa: E402
from llmsite.shutdown import Shutdown  # noqa: E402
from llmsite.sqlite.base import pool  # noqa: E402
from modelhost.host import host  # noqa: E402


def unload() -> None:
    """What is left to end when nothing is answered any more."""
    host.unload()
    pool.end()  # so that the database is one whole file again


shutdown = Shutdown(drain=supervisor.drain, unload=unload, seconds=settings.LLMSITE_DRAIN_SECONDS)

application = by_protocol(django_application, lifespan=shutdown.lifespan)

atexit.register(shutdown.at_exit)
shutdown.attach_to_twisted()
host.on_lost = partial(shutdown.lost, "engine")
supervisor.on_lost = partial(shutdown.lost, "supervisor")
supervisor.start(recover=True)
host.gather = request_slots.settle
host.start(spec(), terminal=sys.stderr.isatty())

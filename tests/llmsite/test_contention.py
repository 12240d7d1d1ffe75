"""Many processes that read and then write the same rows of SQLite all get their turn.

With Django's own settings a third of such transactions fail at once ("database is locked"): one
that has read cannot write any more when another was faster, and is not made to wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 8
TRANSACTIONS = 60  # of each

BEGIN = """
import django
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from chat.models import Conversation
call_command("migrate", verbosity=0)
user = get_user_model().objects.create_user("ada")
Conversation.objects.create(user=user, title="0")
"""
COUNT = f"""
import sys
import django
django.setup()
from django.db import transaction
from chat.models import Conversation
print("ready", flush=True)
sys.stdin.readline()  # until all are
for _ in range({TRANSACTIONS}):
    with transaction.atomic():
        row = Conversation.objects.get()
        row.title = str(int(row.title) + 1)
        row.save()
"""
SHOW = """
import django
django.setup()
from chat.models import Conversation
print(Conversation.objects.get().title)
"""


def start(script, data):
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
            "LLMSITE_DATA": str(data),
            "DJANGO_SETTINGS_MODULE": "llmsite.settings",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_eight_processes_lose_none_of_their_transactions(tmp_path):
    assert start(BEGIN, tmp_path).communicate(timeout=90)[1] == ""
    counting = [start(COUNT, tmp_path) for _ in range(PROCESSES)]
    assert [one.stdout.readline() for one in counting] == ["ready\n"] * PROCESSES

    for one in counting:
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=90)[1] for one in counting]

    assert said == [""] * PROCESSES
    assert start(SHOW, tmp_path).communicate(timeout=60)[0] == f"{PROCESSES * TRANSACTIONS}\n"

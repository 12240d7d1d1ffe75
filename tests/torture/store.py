"""The rows that are left, read past the product."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

ACTIVE = ("queued", "streaming")
ROWS = """
    SELECT r.id, r.status, r.text, r.seed, r.error, p.content, u.username
    FROM chat_response r JOIN chat_prompt p ON p.id = r.prompt_id
    JOIN auth_user u ON u.id = r.user_id
"""
ORPHANS = """
    SELECT p.content FROM chat_prompt p
    LEFT JOIN chat_response r ON r.prompt_id = p.id WHERE r.id IS NULL
"""


@dataclass(frozen=True)
class Row:
    """One response as the database has it. prompt: `alpha 40`, as a witness wants it."""

    id: str
    status: str
    text: str
    seed: int
    error: str
    prompt: str
    owner: str

    @property
    def name(self) -> str:
        return self.prompt.split()[0]

    @property
    def words(self) -> int:
        return int(self.prompt.split()[1])


@dataclass(frozen=True)
class Store:
    """The database of a data folder: SQLite in it, or a PostgreSQL at an address."""

    data: Path
    database: str = ""

    def rows(self) -> list[Row]:
        """All responses."""
        return [Row(uuid.UUID(str(one[0])).hex, *one[1:]) for one in self.query(ROWS)]

    def damage(self) -> list[Any]:
        """Prompts without a response, and what SQLite itself finds wrong with its file."""
        orphans = [f"{prompt} is without a response" for (prompt,) in self.query(ORPHANS)]
        if self.database:
            return orphans
        found = self.query("PRAGMA integrity_check") + self.query("PRAGMA foreign_key_check")
        return orphans + [row for row in found if row != ("ok",)]

    def query(self, statement: str) -> list[Any]:
        """Rows of one statement."""
        if self.database:
            with psycopg.connect(self.database) as database:
                return database.execute(statement).fetchall()
        with closing(sqlite3.connect(self.data / "llmsite.sqlite3", timeout=20)) as database:
            return database.execute(statement).fetchall()

"""API keys as text: `llms_<prefix><secret>`. The prefix finds the row, the digest proves it."""

from __future__ import annotations

import hashlib
import secrets

from django.utils.crypto import constant_time_compare

MARK = "llms_"
PREFIX_LENGTH = 8
SECRET_LENGTH = 40


def generate() -> str:
    """A new key with about 240 random bits behind its prefix."""
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    body = (secrets.choice(alphabet) for _ in range(PREFIX_LENGTH + SECRET_LENGTH))
    return MARK + "".join(body)


def well_formed(key: str) -> bool:
    """Whether this can be a key at all; what cannot be is not looked for."""
    body = key.removeprefix(MARK)
    return body != key and body.isascii() and body.isalnum()


def prefix(key: str) -> str:
    """The part of a key that is stored in the clear and finds its row."""
    return key.removeprefix(MARK)[:PREFIX_LENGTH]


def digest(key: str) -> str:
    """What is stored. A fast hash is right: the key is random, so there is nothing to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


def matches(key: str, stored: str) -> bool:
    """Compare in constant time."""
    return constant_time_compare(digest(key), stored)

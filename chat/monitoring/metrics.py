"""What this process counted since it began, and what it carries now, for Prometheus.

Counted where it happens, which costs about a microsecond each; the gauges are asked for when
somebody looks. None of it says what was asked, or by whom. Processes count each for themselves,
and what one lets go of at its end is counted by the next, so that their sums are right.
"""

from __future__ import annotations

from datetime import datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from modelhost.types import Usage

# Seconds. A first token comes after a tenth of one on a card and after minutes in a long queue.
FIRST_TOKEN = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)
WHOLE = (0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800)

# Else each counter has a second series, of a moment that nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
registry = CollectorRegistry()
ProcessCollector(registry=registry)

RESPONSES = Counter(
    "llmsite_responses",
    "Responses that ended, by the status that their rows say.",
    ["status"],
    registry=registry,
)
PROMPT_TOKENS = Counter(
    "llmsite_prompt_tokens", "Tokens of the prompts of responses that ended.", registry=registry
)
COMPLETION_TOKENS = Counter(
    "llmsite_completion_tokens", "Tokens of answers, as they were made.", registry=registry
)
FIRST_TOKEN_SECONDS = Histogram(
    "llmsite_first_token_seconds",
    "From a prompt being taken in to the first token of its answer, of responses that ended.",
    buckets=FIRST_TOKEN,
    registry=registry,
)
RESPONSE_SECONDS = Histogram(
    "llmsite_response_seconds",
    "From a prompt being taken in to the end of its answer.",
    buckets=WHOLE,
    registry=registry,
)
REFUSALS = Counter(
    "llmsite_refusals",
    "Requests and messages that were refused or failed, by the code that was answered.",
    ["code"],
    registry=registry,
)


def made(tokens: int) -> None:
    """So many tokens of an answer came."""
    COMPLETION_TOKENS.inc(tokens)


def ended(
    status: str,
    usage: Usage,
    *,
    started_at: datetime | None,
    first_token_at: datetime | None,
    finished_at: datetime | None,
) -> None:
    """A response that was generated is at its end, and its row says so."""
    RESPONSES.labels(status).inc()
    PROMPT_TOKENS.inc(usage.prompt_tokens)
    if started_at and first_token_at:
        FIRST_TOKEN_SECONDS.observe(_seconds(started_at, first_token_at))
    if started_at and finished_at:
        RESPONSE_SECONDS.observe(_seconds(started_at, finished_at))


def given_up(status: str) -> None:
    """A response ended that was not, or not any more, generated."""
    RESPONSES.labels(status).inc()


def refused(code: str) -> None:
    """Somebody was answered with this code."""
    REFUSALS.labels(code).inc()


def _seconds(begun: datetime, then: datetime) -> float:
    """Never below 0: a clock may have been set back in between."""
    return max(0.0, (then - begun).total_seconds())

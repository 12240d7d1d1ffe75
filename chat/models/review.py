"""What reviewers think of responses."""

from __future__ import annotations

from typing import TypeVar

from django.conf import settings
from django.db import models
from django.utils import timezone

NOTE_LENGTH = 2000

Rows = TypeVar("Rows", bound=models.QuerySet)


class Judgement(models.TextChoices):
    """What all verdicts on a response come to."""

    GOOD = "good"
    BAD = "bad"
    DISPUTED = "disputed"
    NONE = "none", "Not judged"


class Verdict(models.Model):
    """One reviewer's judgement of one response; who judges again replaces their own.

    The response stays as it is. A verdict outlives its reviewer's account, and goes with its
    response, since a note may quote what was said.
    """

    class Value(models.TextChoices):
        GOOD = "good"
        BAD = "bad"

    response = models.ForeignKey(
        "Response", on_delete=models.CASCADE, related_name="verdicts", editable=False
    )
    reviewer = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="verdicts",
        editable=False,
    )
    value = models.CharField("verdict", max_length=4, choices=Value)
    note = models.TextField(blank=True, max_length=NOTE_LENGTH)
    judged_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["judged_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["response", "reviewer"], name="one_verdict_of_each_reviewer"
            ),
            models.CheckConstraint(
                name="verdict_value_is_known", condition=models.Q(value__in=["good", "bad"])
            ),
        ]
        indexes = [models.Index(fields=["value"])]

    def __str__(self) -> str:
        return f"{self.get_value_display()}: {self.note}" if self.note else self.get_value_display()


def judged(responses: Rows, judgement: str) -> Rows:
    """Those of the responses that are judged so, by everybody who judged them."""
    of = Verdict.objects.order_by()
    good = models.Q(pk__in=of.filter(value=Verdict.Value.GOOD).values("response"))
    bad = models.Q(pk__in=of.filter(value=Verdict.Value.BAD).values("response"))
    any_verdict = models.Exists(of.filter(response=models.OuterRef("pk")))
    return responses.filter(
        {
            Judgement.GOOD: good & ~bad,
            Judgement.BAD: bad & ~good,
            Judgement.DISPUTED: good & bad,
            Judgement.NONE: ~models.Q(any_verdict),
        }[Judgement(judgement)]
    )

"""Taking responses out of the log: the selected ones as JSON lines."""

from __future__ import annotations

from typing import cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse

from chat.limits.readers import TooManyStreams, readers, scanners, take_place
from chat.log.datasets import Format
from chat.log.exports import Export, download
from chat.models import Response

EXPORT = "chat.export_response"


class Downloads:
    """Actions of the list, one for each format. Who took what is in the list of actions.

    Whoever downloads as much as one may already is told so above the list.
    """

    def has_export_permission(self, request: HttpRequest) -> bool:
        """To look at single responses is one right, to carry the log away another."""
        return request.user.has_perm(EXPORT)

    @admin.action(permissions=["export"], description="Download: records, all that is known")
    def download_records(
        self, request: HttpRequest, rows: QuerySet[Response]
    ) -> StreamingHttpResponse | None:
        """To be kept, counted or read elsewhere."""
        return self._download(request, rows, Format.RECORDS)

    @admin.action(permissions=["export"], description="Download: messages, to fine-tune with")
    def download_messages(
        self, request: HttpRequest, rows: QuerySet[Response]
    ) -> StreamingHttpResponse | None:
        """OpenAI's format."""
        return self._download(request, rows, Format.MESSAGES)

    @admin.action(permissions=["export"], description="Download: ChatGLM3's conversations")
    def download_conversations(
        self, request: HttpRequest, rows: QuerySet[Response]
    ) -> StreamingHttpResponse | None:
        """What its fine-tuning scripts read."""
        return self._download(request, rows, Format.CONVERSATIONS)

    def _download(
        self, request: HttpRequest, rows: QuerySet[Response], layout: Format
    ) -> StreamingHttpResponse | None:
        try:
            take_place(request, readers, scanners)
        except TooManyStreams as error:
            messages.error(request, str(error))
            return None
        _note(request, f"Downloaded as {layout.label.lower()}: {_choice(request)}.")
        export = Export(rows, layout, verdicts=True)
        return download(request, export, layout.value, permission=EXPORT)


def _choice(request: HttpRequest) -> str:
    """Which responses were chosen; without what was searched for, which may be a quotation."""
    if request.POST.get("select_across") != "1":
        return f"{len(request.POST.getlist('_selected_action'))} of a page"
    filters = ", ".join(f"{name}={value}" for name, value in request.GET.items() if name != "q")
    searched = " that a search found" if request.GET.get("q") else ""
    return f"all{searched}" + (f" with {filters}" if filters else "")


def _note(request: HttpRequest, sentence: str) -> None:
    """In the log of actions, where it belongs to no single response."""
    LogEntry.objects.create(
        user_id=cast(int, request.user.pk),
        content_type=ContentType.objects.get_for_model(Response),
        object_id=None,
        object_repr="the log",
        action_flag=CHANGE,
        change_message=sentence,
    )

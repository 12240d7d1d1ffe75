"""What the list and the page of a response say that is no column of its row."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.utils import display_for_label

from chat.admin.cells import NOTHING, answer, answer_block, json_block, said, seconds, text_block
from chat.admin.log import link_to, made_once
from chat.conversations import personas
from chat.models import Response, shorten

LABELS = {
    **dict.fromkeys(Response.ACTIVE, "info"),
    Response.Status.DONE: "success",
    Response.Status.STOPPED: "warning",
    **dict.fromkeys((Response.Status.FAILED, Response.Status.INTERRUPTED), "danger"),
}


class ResponseColumns:
    """Columns of the list, fields of the page."""

    @admin.display(description=f"asked ({settings.TIME_ZONE})", ordering="created_at")
    def asked_at(self, row: Response) -> str:
        return f"{timezone.localtime(row.created_at):%Y-%m-%d %H:%M:%S}"

    @admin.display(description="prompt")
    def prompt_text(self, row: Response) -> str:
        return shorten(said(row.prompt), 80)

    @admin.display(description="response")
    def response_text(self, row: Response) -> str:
        return shorten(answer(row) or row.error, 80)

    @admin.display(description="prompt")
    def full_prompt(self, row: Response) -> SafeString:
        return text_block(row.prompt.content)

    @admin.display(description="persona")
    def full_persona(self, row: Response) -> SafeString | str:
        """What the model saw before all that was said."""
        persona = personas.seen(row)
        return text_block(persona) if persona else NOTHING

    @admin.display(description="said by")
    def role(self, row: Response) -> str:
        return row.prompt.role

    @admin.display(description="offered")
    def offered_tools(self, row: Response) -> SafeString | str:
        return json_block(row.tools)

    @admin.display(description="called")
    def called_tools(self, row: Response) -> SafeString | str:
        return json_block(row.tool_calls)

    @admin.display(description="response")
    def full_text(self, row: Response) -> SafeString:
        return answer_block(row)

    @admin.display(description="status", ordering="status")
    def status_label(self, row: Response) -> SafeString:
        if row.imported:
            return display_for_label("imported", NOTHING, True)
        return display_for_label((row.status, row.get_status_display()), NOTHING, LABELS)

    @admin.display(description="tokens")
    def tokens(self, row: Response) -> str:
        counts = (row.prompt_tokens, row.completion_tokens)
        return " → ".join(NOTHING if count is None else str(count) for count in counts)

    @admin.display(description="first token")
    def first_token(self, row: Response) -> str:
        return seconds(row.created_at, row.first_token_at)

    @admin.display(description="took")
    def duration(self, row: Response) -> str:
        """Nothing for what was sent by a client: nobody measured it."""
        return NOTHING if row.imported else seconds(row.created_at, row.finished_at)

    @admin.display(description="speed")
    def speed(self, row: Response) -> str:
        if not (row.first_token_at and row.finished_at and row.completion_tokens):
            return NOTHING
        took = (row.finished_at - row.first_token_at).total_seconds()
        return f"{(row.completion_tokens - 1) / took:.1f} tokens/s" if took > 0 else NOTHING

    @admin.display(description="not seen by the model")
    def unseen(self, row: Response) -> str:
        """The context receipt: earlier turns that did not fit, as ids that the search finds."""
        return f"{len(row.omitted)} turns: {', '.join(row.omitted)}" if row.omitted else NOTHING

    @admin.display(description="key", ordering="api_key")
    def key_name(self, row: Response) -> str:
        return row.api_key.name if row.api_key else NOTHING

    @admin.display(description="token ids")
    @made_once
    def all_token_ids(self, row: Response) -> SafeString | str:
        """As they are: coloured as JSON, fifty thousand would be eleven megabytes."""
        return text_block(", ".join(map(str, row.token_ids)))

    @admin.display(description="stop texts")
    def stop_texts(self, row: Response) -> SafeString | str:
        return json_block(row.stop)

    @admin.display(description="client")
    def told(self, row: Response) -> SafeString | str:
        """What the client told about itself."""
        return json_block(row.client)

    @admin.display(description="message id")
    def message_id(self, row: Response) -> str:
        return row.pk.hex

    @admin.display(description="conversation")
    def conversation_link(self, row: Any) -> SafeString | str:
        """To the path that this response is on."""
        return link_to(row.prompt.conversation, row.request, f"?response={row.pk}")

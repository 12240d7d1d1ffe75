"""Rows as callers read them."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from rest_framework import serializers

from chat.conversations import personas
from chat.conversations.trails import trail
from chat.models import Conversation, Prompt, Response
from modelhost.types import Role


class UsageSerializer(serializers.Serializer[Any]):
    """Token counts."""

    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()


class LoggedMessageSerializer(serializers.ModelSerializer[Response]):
    """One line of the log: a response with the prompt that it answers."""

    message_id = serializers.CharField(source="pk.hex", read_only=True)
    conversation = serializers.UUIDField(source="prompt.conversation_id", read_only=True)
    prompt = serializers.CharField(source="prompt.content", read_only=True)
    response = serializers.CharField(source="text", read_only=True)

    class Meta:
        model = Response
        fields = [
            "message_id",
            "conversation",
            "prompt",
            "response",
            "status",
            "finish_reason",
            "error",
            "model",
            "imported",
            "prompt_tokens",
            "completion_tokens",
            "created_at",
            "finished_at",
        ]
        read_only_fields = fields


class ResponseRowSerializer(serializers.ModelSerializer[Response]):
    """A response with all its figures."""

    message_id = serializers.CharField(source="pk.hex", read_only=True)
    conversation = serializers.UUIDField(source="prompt.conversation_id", read_only=True)
    api_key = serializers.CharField(
        source="api_key.name", default=None, allow_null=True, read_only=True
    )
    system = serializers.SerializerMethodField()

    class Meta:
        model = Response
        fields = [
            "id",
            "message_id",
            "prompt",
            "conversation",
            "system",
            "status",
            "finish_reason",
            "error",
            "text",
            "token_ids",
            "model",
            "revision",
            "adapter",
            "tools",
            "tool_calls",
            "seed",
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "stop",
            "prompt_tokens",
            "completion_tokens",
            "omitted",
            "imported",
            "surface",
            "api_key",
            "client",
            "on_disconnect",
            "created_at",
            "started_at",
            "first_token_at",
            "finished_at",
        ]
        read_only_fields = fields

    def get_system(self, row: Response) -> str:
        """The persona that it was asked under."""
        return personas.seen(row)


class ShortResponseSerializer(serializers.ModelSerializer[Response]):
    """A response inside its conversation."""

    class Meta:
        model = Response
        fields = ["id", "status", "finish_reason", "error", "text", "imported", "created_at"]
        read_only_fields = fields


class PromptRowSerializer(serializers.ModelSerializer[Prompt]):
    """A prompt and its responses."""

    responses = ShortResponseSerializer(many=True, read_only=True)

    class Meta:
        model = Prompt
        fields = ["id", "role", "content", "earlier", "follows", "created_at", "responses"]
        read_only_fields = fields


class ConversationRowSerializer(serializers.ModelSerializer[Conversation]):
    """A conversation without its prompts."""

    class Meta:
        model = Conversation
        fields = ["id", "title", "system", "created_at"]
        read_only_fields = fields


class BranchingSerializer(serializers.ModelSerializer[Prompt]):
    """A node of the tree: what it follows, and its responses, oldest first."""

    responses = serializers.SerializerMethodField()

    class Meta:
        model = Prompt
        fields = ["id", "follows", "created_at", "responses"]
        read_only_fields = fields

    def get_responses(self, prompt: Prompt) -> list[dict[str, Any]]:
        """Ids and states."""
        rows = sorted(prompt.responses.all(), key=lambda row: row.created_at)
        return [{"id": str(row.pk), "status": row.status} for row in rows]


class ConversationTreeSerializer(ConversationRowSerializer):
    """A conversation with all its branches.

    tree: every prompt, oldest first, without texts. path: the prompts and responses with
    their texts from the beginning to the context's `leaf`, or to the newest response.
    """

    tree = serializers.SerializerMethodField()
    path = serializers.SerializerMethodField()

    class Meta(ConversationRowSerializer.Meta):
        fields = [*ConversationRowSerializer.Meta.fields, "tree", "path"]
        read_only_fields = fields

    def get_tree(self, conversation: Conversation) -> list[dict[str, Any]]:
        """Every prompt with the ids around it."""
        slim = Response.objects.only("id", "prompt_id", "status", "created_at")
        prompts = conversation.prompts.only("id", "conversation_id", "follows_id", "created_at")
        rows = prompts.order_by("created_at").prefetch_related(Prefetch("responses", queryset=slim))
        return list(BranchingSerializer(rows, many=True).data)

    def get_path(self, conversation: Conversation) -> list[dict[str, Any]]:
        """What a page shows."""
        leaf = self.context.get("leaf") or conversation.newest_response()
        return [_turn(row) for row in trail(leaf)]


def _turn(row: Prompt | Response) -> dict[str, Any]:
    if isinstance(row, Prompt):
        said = {"prompt": str(row.pk), "role": row.role, "content": row.content}
        return said | {"earlier": row.earlier}
    said = {"response": str(row.pk), "role": Role.ASSISTANT.value, "content": row.text}
    ended = {"status": row.status, "finish_reason": row.finish_reason, "error": row.error}
    return said | ended | {"omitted": row.omitted, "tool_calls": row.tool_calls}


class TurnRepresentation(serializers.Serializer[Any]):
    """One turn."""

    role = serializers.CharField()
    content = serializers.CharField()


class AnswerSerializer(serializers.Serializer[Any]):
    """The answer to a new message; for the schema, `events.message` makes it."""

    response = serializers.CharField()
    history = TurnRepresentation(many=True)
    status = serializers.IntegerField()
    time = serializers.CharField()
    message_id = serializers.CharField()
    conversation = serializers.UUIDField()
    usage = UsageSerializer()
    omitted = serializers.ListField(child=serializers.CharField())

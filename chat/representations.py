"""Rows as callers read them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from chat.models import Conversation, Prompt, Response


class UsageSerializer(serializers.Serializer[Any]):
    """Token counts."""

    prompt_tokens = serializers.IntegerField(allow_null=True)
    completion_tokens = serializers.IntegerField(allow_null=True)


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


class ResponseSerializer(serializers.ModelSerializer[Response]):
    """A response with all its figures."""

    message_id = serializers.CharField(source="pk.hex", read_only=True)
    conversation = serializers.UUIDField(source="prompt.conversation_id", read_only=True)
    api_key = serializers.CharField(source="api_key.name", default=None, read_only=True)

    class Meta:
        model = Response
        fields = [
            "id",
            "message_id",
            "prompt",
            "conversation",
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
            "created_at",
            "started_at",
            "first_token_at",
            "finished_at",
        ]
        read_only_fields = fields


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

"""What every operation has and no view says: errors, streams, headers, an example to try.

drf-spectacular's postprocessing hook; the shapes are those of `chat.errors` and `chat.events`.
"""

from __future__ import annotations

from typing import Any

from chat.errors import OPENAI_PREFIX, PROBLEM_JSON, Code

# What Swagger UI puts into a body to be tried; without it a value is made up for every field.
EXAMPLES: dict[str, dict[str, Any]] = {
    "Message": {"prompt": "What is the capital of France?"},
    "Branch": {"prompt": "And of Italy?"},
    "Regenerate": {"temperature": 0.7},
    "Completion": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
    "Conversation": {"title": "Holidays"},
    "PatchedConversation": {"title": "Holidays"},
}
ASKED = ("Message", "Branch", "Regenerate", "Completion")  # bodies that a response comes of

TEXT = {"type": "string"}
CODE = {**TEXT, "enum": [code.value for code in Code]}
PROBLEM = {
    "type": "object",
    "description": "RFC 9457. errors: each wrong field with what is wrong. message_id: of a "
    "response that was begun all the same.",
    "required": ["type", "title", "status", "detail", "code", "errors"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "code": CODE,
        "errors": {"type": "object", "additionalProperties": {"type": "array", "items": TEXT}},
        "message_id": TEXT,
    },
}
OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {**TEXT, "nullable": True},
                "code": CODE,
            },
        }
    },
}
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {**TEXT, "minLength": 1, "maxLength": 255},
    "description": "A retry under the same key joins what the first request began.",
}
LAST_EVENT_ID = {
    "in": "header",
    "name": "Last-Event-ID",
    "schema": TEXT,
    "description": "Go on with a stream behind this event instead of asking.",
}
RESUMED = ("/chat/new/message/", "/sendMessage/", "/api/responses/{id}/events")


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The schema with all that."""
    schemas = result["components"]["schemas"]
    schemas |= {"Problem": PROBLEM, "OpenAIError": OPENAI_ERROR}
    for name, example in EXAMPLES.items():
        schemas[name]["example"] = example
    for path, operations in result["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return result


def _complete(path: str, operation: dict[str, Any]) -> None:
    openai = path.startswith(OPENAI_PREFIX)
    kind, name = ("application/json", "OpenAIError") if openai else (PROBLEM_JSON, "Problem")
    operation["responses"]["default"] = {
        "description": "It was refused, or it failed.",
        "content": {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
    parameters = operation.setdefault("parameters", [])
    if _asks(operation):
        parameters.append(IDEMPOTENCY_KEY)
        for status, response in operation["responses"].items():
            if status in ("200", "201"):
                response["content"]["text/event-stream"] = {"schema": TEXT}
    if path in RESUMED:
        parameters.append(LAST_EVENT_ID)


def _asks(operation: dict[str, Any]) -> bool:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return str(body.get("schema", {}).get("$ref", "")).rpartition("/")[2] in ASKED

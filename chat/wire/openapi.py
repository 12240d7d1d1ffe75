"""What every operation has and no view says: errors, streams, headers, an example to try.

drf-spectacular's postprocessing hook; the shapes are those of `chat.failures` and
`chat.wire.events`.
"""

from __future__ import annotations

import json
from typing import Any

from chat.failures import OPENAI_PREFIX, PROBLEM_JSON, Code
from chat.wire.completion_requests import KINDS, NEUTRAL, RECORDED
from chat.wire.descriptions import of_field
from chat.wire.negotiation import EVENT_STREAM

# What Swagger UI puts into a body to be tried; without it a value is made up for every field.
EXAMPLES: dict[str, dict[str, Any]] = {
    "Message": {"prompt": "What is the capital of France?"},
    "Branch": {"prompt": "And of Italy?"},
    "Regenerate": {"temperature": 0.7},
    "Completion": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
    "Conversation": {"title": "Holidays"},
    "PatchedConversation": {"title": "Holidays"},
}
# Bodies whose every field stands here; chat completions take the older ones beside theirs.
CLOSED = ("Message", "Branch", "Regenerate", "Conversation", "PatchedConversation", "Turn")
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
HEADERS = {
    "X-Request-ID": "The request's name in the log: the one that it came with, or a new one.",
    "Retry-After": "Seconds until asking again may help, where it may.",
    "WWW-Authenticate": "With 401: how to say who asks.",
    "Content-Disposition": "The file's name.",
}
FILES = ("/api/export",)
RESUMED = ("/chat/new/message/", "/sendMessage/", "/api/responses/{id}/events")


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The schema with all that."""
    schemas = result["components"]["schemas"]
    schemas |= {"Problem": PROBLEM, "OpenAIError": OPENAI_ERROR}
    result["components"]["headers"] = {
        name: {"schema": TEXT, "description": meaning} for name, meaning in HEADERS.items()
    }
    _recorded_and_neutral(schemas["Completion"])
    for name, example in EXAMPLES.items():
        schemas[name]["example"] = example
    for name in CLOSED:
        schemas[name]["additionalProperties"] = False
    for path, operations in result["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
            operation["parameters"] = [
                _described(parameter, path, parameter["name"])
                for parameter in operation["parameters"]
            ]
    for owner, schema in schemas.items():
        for name, field in schema.get("properties", {}).items():
            schema["properties"][name] = _described(field, owner, name)
    return result


def _recorded_and_neutral(completion: dict[str, Any]) -> None:
    """The fields of a chat completion that its serializer is not shown."""
    properties = completion["properties"]
    properties["messages"]["minItems"] = 1
    del properties["client"]  # the serializer's own word for what is recorded
    for name, kind in RECORDED.items():
        described = "Recorded with the response."
        properties[name] = {"type": KINDS[kind], "nullable": True, "description": described}
    for name, values in NEUTRAL.items():
        served = " and ".join(json.dumps(value) for value in (*values, None))
        properties[name] = {"nullable": True, "description": f"Taken are {served}."}


def _described(field: dict[str, Any], owner: str, name: str) -> dict[str, Any]:
    """A parameter or property, with what it means if it did not say so; several may share one."""
    sentence = of_field(owner, name)
    if sentence and "description" not in field:
        if "$ref" in field:  # beside which OpenAPI 3.0 reads nothing
            return {"allOf": [field], "description": sentence}
        return {**field, "description": sentence}
    return field


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
        streamed = operation["responses"].setdefault("200", {"description": "With `stream`."})
        streamed.setdefault("content", {})[EVENT_STREAM] = {"schema": TEXT}
    if path in RESUMED:
        parameters.append(LAST_EVENT_ID)
    for status, response in operation["responses"].items():
        response["headers"] = {
            name: {"$ref": f"#/components/headers/{name}"} for name in _headers(path, status)
        }


def _headers(path: str, status: str) -> list[str]:
    """What a client can read of such an answer's head."""
    names = ["X-Request-ID"]
    if status == "default":
        names += ["Retry-After", "WWW-Authenticate"]
    elif status == "503":
        names.append("Retry-After")
    elif path in FILES:
        names.append("Content-Disposition")
    return names


def _asks(operation: dict[str, Any]) -> bool:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return str(body.get("schema", {}).get("$ref", "")).rpartition("/")[2] in ASKED

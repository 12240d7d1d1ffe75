"""What the API answers is what its description (OpenAPI) says: status, type and fields."""

from __future__ import annotations

from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from tests.chat.rows import answered

STREAMED = {"json": {"prompt": "a", "stream": True}}


@pytest.fixture(scope="module")
def schema() -> Any:
    """The generated description."""
    return SchemaGenerator().get_schema(request=None, public=True)


def undescribed(schema: Any, value: Any, description: Any, name: str = "") -> list[str]:
    """What a value has that its description does not know: a field, or null."""
    if "$ref" in description:
        description = schema["components"]["schemas"][description["$ref"].rpartition("/")[2]]
    if "allOf" in description:
        [description] = description["allOf"]
        return undescribed(schema, value, description, name)
    if "type" not in description:  # anything
        return []
    if value is None:
        return [] if description.get("nullable") else [f"{name} is null"]
    parts: list[tuple[Any, Any, str]] = []
    if isinstance(value, list):
        parts = [(item, description["items"], f"{name}.*") for item in value]
    elif isinstance(value, dict) and "additionalProperties" not in description:
        fields = description["properties"]
        if unknown := value.keys() - fields.keys():
            return [f"{name}.{field}" for field in sorted(unknown)]
        parts = [(value[field], fields[field], f"{name}.{field}") for field in value]
    return [found for part in parts for found in undescribed(schema, *part)]


@pytest.mark.parametrize(
    ("path", "method", "options", "status"),
    [
        ("/chat/new/message/", "post", {"json": {"prompt": "a"}}, 200),
        ("/chat/new/message/", "post", STREAMED, 200),
        ("/chat/new/message/", "post", {"json": {"prompt": ""}}, 400),
        ("/chat/get/messages/", "get", {}, 200),
        ("/sendMessage/", "get", {"params": {"prompt": "a"}}, 200),
        ("/api/prompts/{prompt}/responses/", "post", {"json": {}}, 201),
        ("/api/prompts/{prompt}/responses/", "post", {"json": {"stream": True}}, 200),
        ("/api/conversations/", "get", {}, 200),
        ("/api/conversations/", "post", {"json": {}}, 201),
        ("/api/conversations/{conversation}/", "get", {}, 200),
        ("/api/conversations/{conversation}/", "patch", {"json": {"title": "a"}}, 200),
        ("/api/conversations/{conversation}/prompts/", "get", {}, 200),
        ("/api/conversations/{conversation}/prompts/", "post", {"json": {"prompt": "a"}}, 201),
        ("/api/conversations/{conversation}/prompts/", "post", STREAMED, 200),
        ("/api/responses/{response}/", "get", {}, 200),
        ("/api/responses/{response}/events", "get", {}, 200),
        ("/api/responses/{response}/stop", "post", {}, 200),
        ("/api/export", "get", {}, 200),
        ("/v1/chat/completions", "post", {"json": {"messages": []}}, 400),
    ],
)
def test_an_answer_is_as_described(schema, api, user, engine, path, method, options, status):
    row = answered(user, "Hello")
    ids = {
        "response": row.pk,
        "prompt": row.prompt_id,
        "conversation": row.prompt.conversation_id,
    }

    answer = api.request(method, path.format(**ids), **options)

    template = path.format(response="{id}", prompt="{id}", conversation="{id}")
    described = schema["paths"][template][method]["responses"]
    content = described.get(str(status), described["default"])["content"]
    kind = answer.headers["Content-Type"].partition(";")[0]
    assert answer.status_code == status
    assert kind in content
    if kind.endswith("json"):
        assert undescribed(schema, answer.json(), content[kind]["schema"]) == []


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/chat/new/message/", "post"),
        ("/sendMessage/", "get"),
        ("/api/responses/{id}/events", "get"),
    ],
)
def test_who_has_read_all_gets_the_empty_answer_that_is_described(schema, api, user, path, method):
    row = answered(user, "Hello")
    whole = {"Last-Event-ID": f"{row.pk.hex}:{len(row.text)}"}

    answer = api.request(method, path.format(id=row.pk), headers=whole)

    assert answer.status_code == 204
    assert "content" not in schema["paths"][path][method]["responses"]["204"]

"""The API described by itself: OpenAPI and its reading room."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from django.urls import URLPattern, get_resolver
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from chat.wire.completion_requests import NEUTRAL, RECORDED
from chat.wire.descriptions import FIELDS
from modelhost.host import host
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine

UNDESCRIBED = {"page"}  # for people
# What HTTP libraries, browsers and proxies read, as they do of every server.
TECHNICAL = {
    "allow",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "cross-origin-opener-policy",
    "referrer-policy",
    "server",
    "transfer-encoding",
    "vary",
    "x-accel-buffering",
    "x-content-type-options",
    "x-frame-options",
}


@pytest.fixture(scope="module")
def schema() -> dict:
    """The generated description; a warning of the generator is a failure here."""
    GENERATOR_STATS.reset()
    made = SchemaGenerator().get_schema(request=None, public=True)
    assert GENERATOR_STATS._warn_cache == {}
    assert GENERATOR_STATS._error_cache == {}
    return made


def test_the_description_is_valid(schema):
    validate_schema(schema)


def test_every_route_of_the_api_is_described(schema):
    ours = next(one for one in get_resolver().url_patterns if "chat.urls" in str(one))
    routes = {
        "/" + re.sub(r"<\w+:(\w+)>", r"{\1}", str(route.pattern).strip("^$").replace("/?", "/"))
        for route in ours.url_patterns
        if isinstance(route, URLPattern) and route.name not in UNDESCRIBED
    }
    described = {path.replace("{id}", "{pk}") for path in schema["paths"]}

    assert {path.rstrip("/") for path in routes} == {path.rstrip("/") for path in described}


def test_every_operation_says_what_it_does_and_answers(schema):
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), (method, path)
            assert operation["responses"], (method, path)


def named_fields(schema) -> dict[tuple[str, str], dict]:
    """Every parameter by its path and name, every property by its component and name."""
    parameters = {
        (path, parameter["name"]): parameter
        for path, operations in schema["paths"].items()
        for operation in operations.values()
        for parameter in operation["parameters"]
    }
    properties = {
        (owner, name): field
        for owner, component in schema["components"]["schemas"].items()
        for name, field in component.get("properties", {}).items()
    }
    return parameters | properties


def test_every_field_says_what_it_means(schema):
    fields = named_fields(schema)

    assert len(fields) > 150
    assert [named for named, field in fields.items() if not field.get("description")] == []


def test_fields_that_are_alike_keep_their_own_meanings(schema):
    problem = schema["components"]["schemas"]["Problem"]["properties"]
    told = {name: field["description"] for name, field in problem.items()}

    assert told == {name: FIELDS[f"Problem.{name}"] for name in problem}
    assert schema["components"]["headers"]["Retry-After"]["schema"] == {"type": "string"}


@pytest.mark.parametrize("name", ["Message", "Branch", "Regenerate", "Conversation", "Turn"])
def test_bodies_in_which_unknown_fields_are_refused_say_so(schema, name):
    assert schema["components"]["schemas"][name]["additionalProperties"] is False


def test_a_prompt_that_says_nothing_is_none(schema):
    schemas = schema["components"]["schemas"]
    for body in ("Message", "Branch"):
        pattern = schemas[body]["properties"]["prompt"]["pattern"]
        assert re.search(pattern, " a")
        assert not re.search(pattern, " \n")
    assert schemas["Completion"]["properties"]["messages"]["minItems"] == 1


def test_no_field_is_described_that_is_nowhere(schema):
    fields = named_fields(schema)
    names = {name for _, name in fields} | {f"{owner}.{name}" for owner, name in fields}

    assert set(FIELDS) - names == set()


def test_all_that_a_completion_may_have_is_described(schema):
    completion = schema["components"]["schemas"]["Completion"]["properties"]

    assert set(RECORDED) | set(NEUTRAL) | {"messages", "tools", "stream_options"} <= set(completion)
    assert "client" not in completion
    assert completion["metadata"]["type"] == "object"
    assert completion["n"]["description"] == "Taken are 1 and null."


def test_the_description_names_the_fields_of_a_message(schema):
    fields = schema["components"]["schemas"]["Message"]["properties"]

    assert {"prompt", "history", "conversation", "stream", "temperature"} <= set(fields)


def test_every_operation_says_how_it_fails(schema):
    for path, operations in schema["paths"].items():
        name = "OpenAIError" if path.startswith("/v1/") else "Problem"
        for operation in operations.values():
            [content] = operation["responses"]["default"]["content"].values()
            assert content["schema"]["$ref"].endswith(f"/{name}")


def test_what_asks_may_be_streamed_and_retried(schema):
    for path in ("/chat/new/message/", "/v1/chat/completions", "/api/prompts/{id}/responses/"):
        operation = schema["paths"][path]["post"]
        assert "text/event-stream" in operation["responses"]["200"]["content"]
        assert "Idempotency-Key" in [one["name"] for one in operation["parameters"]]


@pytest.mark.parametrize("size", [0, 1, 200, 201])
def test_the_sizes_of_a_page_are_described(schema, api, size):
    path = "/api/conversations/"
    described = schema["paths"][path]["get"]["parameters"]
    [bounds] = [one["schema"] for one in described if one["name"] == "page_size"]

    taken = api.get(path, params={"page_size": size}).status_code == 200

    assert taken == (bounds["minimum"] <= size <= bounds["maximum"])


def test_what_asks_by_its_address_alone_names_its_retries_there(schema):
    described = schema["paths"]["/sendMessage/"]["get"]["parameters"]
    [key] = [one for one in described if one["name"] == "idempotency_key"]

    assert (key["in"], key.get("required", False)) == ("query", False)
    assert (key["schema"]["minLength"], key["schema"]["maxLength"]) == (1, 255)


def test_the_headers_of_answers_are_described(schema, api, client_for, user, serve):
    serve(ScriptedEngine())
    asking, row = "/chat/new/message/", answered(user, "Hello")
    ask = {"json": {"prompt": "a"}}
    answers = [
        (asking, api.post(asking, **ask)),
        (asking, api.post(asking, json={"prompt": "a", "stream": True})),
        (asking, api.post(asking, json={})),
        (asking, client_for(None).post(asking, **ask)),
        ("/v1/models", api.get("/v1/models")),
        ("/api/conversations/", api.post("/api/conversations/", json={})),
        ("/api/responses/{id}/", api.get(f"/api/responses/{row.pk}/")),
        ("/api/responses/{id}/events", api.get(f"/api/responses/{row.pk}/events")),
        ("/api/export", api.get("/api/export")),
        ("/readyz", api.get("/readyz")),
    ]
    serve(ScriptedEngine(max_requests=0))
    answers.append((asking, api.post(asking, **ask)))
    host.unload()
    answers += [(path, api.get(path)) for path in ("/v1/models", "/readyz")]

    for path, answer in answers:
        described = schema["paths"][path][answer.request.method.lower()]["responses"]
        response = described.get(str(answer.status_code), described["default"])
        told = {name.lower() for name in answer.headers} - TECHNICAL
        assert told <= {name.lower() for name in response["headers"]}, (path, answer)
    told = {name for _, answer in answers for name in answer.headers}
    assert {name.lower() for name in schema["components"]["headers"]} <= told


@pytest.mark.parametrize("path", ["/chat/new/message/", "/v1/chat/completions"])
def test_what_its_page_puts_into_a_body_is_answered(schema, api, engine, path):
    name = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    example = schema["components"]["schemas"][name["$ref"].rpartition("/")[2]]["example"]

    assert api.post(path, json=example).status_code == 200


def test_programs_get_it_without_a_key(client_for):
    answer = client_for(None).get("/api/schema/")

    assert answer.status_code == 200
    assert "openapi" in answer.text[:200]


@pytest.mark.parametrize(
    ("accepted", "read"),
    [
        ("application/vnd.oai.openapi", yaml.safe_load),
        ("application/vnd.oai.openapi+json", json.loads),
        ("application/json", json.loads),
        ("*/*", yaml.safe_load),
    ],
)
def test_it_comes_in_the_format_that_is_asked_for(client_for, schema, accepted, read):
    answer = client_for(None).get("/api/schema/", headers={"Accept": accepted})

    assert read(answer.text)["paths"].keys() == schema["paths"].keys()
    assert answer.headers["Content-Type"].startswith(accepted.replace("*/*", "application/vnd"))


def test_it_is_made_once_whoever_asks(client_for, api, monkeypatch):
    before = client_for(None).get("/api/schema/").text
    monkeypatch.delattr(SchemaGenerator, "get_schema")

    for client in (client_for(None), api):
        for query in ("", "?version=2%0d%0aSet-Cookie:a=b", "?lang=de"):
            assert client.get(f"/api/schema/{query}").text == before


def test_the_reading_room_needs_no_other_host(client_for, server):
    client = client_for(None)
    page = client.get("/api/docs/")
    assert page.status_code == 200

    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert addresses
    assert not re.search(r"https?://|//cdn", "".join(addresses))
    for address in addresses:
        if address.startswith("/static/"):
            assert client.get(address).status_code == 200

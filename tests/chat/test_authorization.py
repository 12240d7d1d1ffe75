"""Every route against everybody who may not use it. The routes come from the resolver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from chat.models import ApiKey, Conversation, Prompt, Response

PUBLIC = {"healthz", "readyz", "schema", "docs", "login"}
FOR_STAFF = {"metrics"}  # test_metrics.py has its tests
BY_SESSION = {"page", "logout", "password"}  # for browsers; test_page.py has their tests
# What is asked of each route. A route that is not here fails the test that looks for it.
REQUESTS = {
    "new-message": [("POST", "/chat/new/message/", {"prompt": "a"})],
    "messages": [("GET", "/chat/get/messages/", None)],
    "send-message": [("GET", "/sendMessage?prompt=a", None)],
    "chat-completions": [
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})
    ],
    "models": [("GET", "/v1/models", None)],
    "model": [("GET", "/v1/models/demo", None)],
    "conversations": [("GET", "/api/conversations/", None), ("POST", "/api/conversations/", {})],
    "conversation": [
        (method, "/api/conversations/{conversation}/", {} if method == "PATCH" else None)
        for method in ("GET", "PATCH", "DELETE")
    ],
    "prompts": [
        ("GET", "/api/conversations/{conversation}/prompts/", None),
        ("POST", "/api/conversations/{conversation}/prompts/", {"prompt": "a"}),
    ],
    "response": [("GET", "/api/responses/{response}/", None)],
    "events": [("GET", "/api/responses/{response}/events", None)],
    "stop": [("POST", "/api/responses/{response}/stop", None)],
    "export": [("GET", "/api/export", None)],
    "regenerate": [("POST", "/api/prompts/{prompt}/responses/", {})],
}
# Ways to name somebody's row besides the path.
BY_FIELD = [
    ("POST", "/chat/new/message/", {"prompt": "a", "conversation": "{conversation}"}),
    (
        "POST",
        "/chat/new/message/",
        {"prompt": "a", "history": [], "conversation": "{conversation}"},
    ),
    ("POST", "/v1/chat/completions", {"prompt": "a", "conversation": "{conversation}"}),
    ("GET", "/sendMessage?prompt=a&conversation={conversation}", None),
]
ALL = [request for requests in REQUESTS.values() for request in requests]
WITH_IDS = [request for request in ALL if "{" in request[1]] + BY_FIELD


def routes(resolver: URLResolver) -> Iterator[URLPattern]:
    """Every route of ours; the admin guards itself."""
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            if entry.app_name != "admin":
                yield from routes(entry)
        elif not str(entry.pattern).startswith("admin"):
            yield entry


def test_every_route_is_in_the_table():
    names = {route.name for route in routes(get_resolver())}

    assert names == PUBLIC | FOR_STAFF | BY_SESSION | set(REQUESTS)


@pytest.fixture
def row(other) -> Response:
    """Somebody else's response."""
    conversation = Conversation.objects.create(user=other, title="Theirs")
    prompt = Prompt.objects.create(conversation=conversation, content="secret")
    return Response.objects.create(
        prompt=prompt, user=other, text="secret", status=Response.Status.DONE
    )


def send(client, request, row: Response):
    """One request, its placeholders filled with the ids of this row."""
    method, path, body = request
    ids = {
        "conversation": str(row.prompt.conversation_id),
        "prompt": str(row.prompt_id),
        "response": str(row.pk),
    }
    if body and "conversation" in body:
        body = {**body, "conversation": ids["conversation"]}
    return client.request(method, path.format(**ids), json=body)


def refused(request, client, row: Response, *, status: int, code: str) -> bool:
    """Whether a request got this refusal in its surface's shape, and nothing changed."""
    answer = send(client, request, row)
    body = answer.json()
    shown = body["error"] if request[1].startswith("/v1/") else body
    assert "secret" not in answer.text
    assert Response.objects.count() == Prompt.objects.count() == Conversation.objects.count() == 1
    assert Conversation.objects.get().title == "Theirs"
    return (answer.status_code, shown["code"]) == (status, code)


def test_nobody_gets_in_without_a_usable_key(client_for, user, row, engine):
    _, revoked = (key := ApiKey.issue(user=user))
    key[0].revoke()
    _, working = ApiKey.issue(user=row.user)
    strangers = {
        "anonymous": client_for(None),
        "revoked": client_for(revoked),
        "unknown": client_for(working[:-1] + ("A" if working[-1] != "A" else "B")),
    }
    for who, client in strangers.items():
        for request in ALL + BY_FIELD:
            assert refused(request, client, row, status=401, code="not_authenticated"), (
                who,
                request,
            )
    assert engine.prompts == []


def test_an_inactive_user_is_nobody(client_for, row, engine):
    client = client_for(ApiKey.issue(user=row.user)[1])
    row.user.is_active = False
    row.user.save()

    for request in ALL + BY_FIELD:
        assert refused(request, client, row, status=401, code="not_authenticated"), request


def test_others_rows_do_not_exist(api, row, engine):
    for request in WITH_IDS:
        assert refused(request, api, row, status=404, code="not_found"), request
    assert engine.prompts == []


def test_a_superuser_has_no_other_rights_here_than_anybody(api, user, row, engine):
    user.is_staff = user.is_superuser = True
    user.save()

    for request in WITH_IDS:
        assert refused(request, api, row, status=404, code="not_found"), request


def test_the_owner_gets_in(client_for, row, engine):
    client = client_for(ApiKey.issue(user=row.user)[1])
    deleting = [request for request in WITH_IDS if request[0] == "DELETE"]
    for request in [*(one for one in ALL + BY_FIELD if one not in deleting), *deleting]:
        assert send(client, request, row).status_code in (200, 201, 204), request


def test_what_is_public_needs_no_key(client_for, engine):
    anonymous = client_for(None)
    for path in ("/healthz", "/readyz", "/api/schema/", "/api/docs/"):
        assert anonymous.get(path).status_code == 200


def test_the_page_sends_a_visitor_to_the_login(client_for, engine):
    answer = client_for(None).get("/")

    assert answer.status_code == 302
    assert answer.headers["Location"] == f"{reverse('login')}?next=/"


def test_the_model_is_told_whose_prompt_it_is(api, client_for, user, other_api, engine):
    """It shares what it has computed between the prompts of one person, and of no others."""
    for client in (api, client_for(ApiKey.issue(user=user)[1]), other_api):
        assert client.post("/chat/new/message/", json={"prompt": "Hi"}).status_code == 200

    mine, still_mine, theirs = engine.owners
    assert mine == still_mine != theirs

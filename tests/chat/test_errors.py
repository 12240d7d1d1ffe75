"""One error shape for each surface, over every endpoint."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import Client
from rest_framework.exceptions import Throttled, ValidationError

from chat import acceptance
from chat.errors import failure_of
from chat.failures import Code, Failure
from chat.models import Conversation, Prompt
from chat.views import completions, conversations, messages
from chat.wire.completion_requests import CompletionSerializer
from modelhost import errors as modelhost
from modelhost.host import Host, host
from modelhost.types import ModelSpec
from tests.chat.refusals import named
from tests.fakes import ScriptedEngine

SOME = "00000000-0000-0000-0000-000000000000"
USER = [{"role": "user", "content": "a"}]
# Every route with its methods; the others are 405.
METHODS = {
    "/chat/new/message/": {"POST"},
    "/chat/get/messages/": {"GET"},
    "/sendMessage": {"GET"},
    "/v1/chat/completions": {"POST"},
    "/v1/models": {"GET"},
    "/v1/models/demo": {"GET"},
    "/api/conversations/": {"GET", "POST"},
    f"/api/conversations/{SOME}/": {"GET", "PATCH", "DELETE"},
    f"/api/conversations/{SOME}/prompts/": {"GET", "POST"},
    f"/api/responses/{SOME}/": {"GET"},
    f"/api/responses/{SOME}/events": {"GET"},
    f"/api/responses/{SOME}/stop": {"POST"},
    f"/api/prompts/{SOME}/responses/": {"POST"},
    "/healthz": {"GET"},
    "/readyz": {"GET"},
}
ASKING = [
    ("POST", "/chat/new/message/", {"prompt": "a"}),
    ("POST", "/chat/new/message/", {"prompt": "a", "stream": True}),
    ("GET", "/sendMessage?prompt=a", None),
    ("POST", "/v1/chat/completions", {"messages": USER}),
    ("POST", "/v1/chat/completions", {"messages": USER, "stream": True}),
    ("POST", "/v1/chat/completions", {"prompt": "a"}),
    ("POST", "/api/conversations/{conversation}/prompts/", {"prompt": "a"}),
]


def asked(api, user):
    """The answers of every route that starts a generation."""
    conversation = Conversation.objects.create(user=user).pk
    for method, path, body in ASKING:
        yield api.request(method, path.format(conversation=conversation), json=body)


@pytest.mark.parametrize("path", METHODS)
def test_methods_that_a_route_does_not_have_are_405(api, engine, path):
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - METHODS[path]:
        answer = api.request(method, path)
        assert (answer.status_code, named(answer)[0]) == (405, "method_not_allowed")
        assert METHODS[path] <= {name.strip() for name in answer.headers["Allow"].split(",")}


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/nothing", "/v1/chat/completions/", "/api/nothing/", "/chat/", "/v1/"]
)
def test_addresses_of_nothing_are_404(client_for, path):
    answer = client_for(None).post(path, json={})

    assert (answer.status_code, named(answer)[0]) == (404, "not_found")


def test_a_refusal_says_how_to_authenticate(client_for, engine):
    for path, methods in METHODS.items():
        if path in ("/healthz", "/readyz"):
            continue
        for method in methods:
            answer = client_for(None).request(method, path)
            assert (answer.status_code, named(answer)[0]) == (401, "not_authenticated")
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="llmsite"'


def test_a_refused_session_request_is_403(user, engine):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    for path in ("/chat/new/message/", "/v1/chat/completions", "/api/conversations/"):
        answer = browser.post(path, {"prompt": "a"}, content_type="application/json")
        body = answer.json()
        code = body["error"]["code"] if path.startswith("/v1/") else body["code"]
        assert (answer.status_code, code) == (403, "forbidden")


def test_a_full_engine_is_429_on_every_asking_route(api, user, serve):
    serve(ScriptedEngine(max_requests=0))
    for answer in asked(api, user):
        assert (answer.status_code, named(answer)[0]) == (429, "too_many_requests")
        assert answer.headers["Retry-After"] == "10"
    assert not Prompt.objects.exists()


def test_without_a_model_every_asking_route_is_503(api, user):
    host.unload()
    for answer in asked(api, user):
        assert (answer.status_code, named(answer)[0]) == (503, "model_loading")
        assert answer.headers["Retry-After"] == "5"
    for path in ("/v1/models", "/v1/models/demo"):
        assert named(api.get(path))[0] == "model_loading"
    assert not Prompt.objects.exists()


def test_an_engine_that_stands_still_is_503(api, user, serve):
    serve(ScriptedEngine()).alive = False
    for answer in asked(api, user):
        assert (answer.status_code, named(answer)[0]) == (503, "model_loading")


def failing(spec, progress):
    """A loader that cannot."""
    raise modelhost.LoadFailed("There is no model in /nowhere.")


def test_a_model_that_could_not_be_loaded_is_503_and_says_why(api, user, monkeypatch):
    broken = Host(failing)
    for module in ("chat.acceptance", "chat.views.completions", "chat.monitoring.health"):
        monkeypatch.setattr(f"{module}.host", broken)
    broken.start(ModelSpec())
    with pytest.raises(modelhost.LoadFailed):
        broken.wait(10)

    for answer in asked(api, user):
        assert (answer.status_code, named(answer)[0]) == (503, "model_failed")
        assert answer.headers["Retry-After"] == "60"
        assert "no model in /nowhere" in answer.text
    readiness = api.get("/readyz")
    assert readiness.status_code == 503
    assert readiness.json()["status"] == "failed"
    assert readiness.json()["detail"] == "There is no model in /nowhere."


@pytest.mark.parametrize(
    ("view", "method", "path"),
    [
        (messages.NewMessage, "post", "/chat/new/message/"),
        (completions.ChatCompletions, "post", "/v1/chat/completions"),
        (conversations.Conversations, "get", "/api/conversations/"),
    ],
)
def test_an_error_that_nobody_foresaw_tells_nothing(api, monkeypatch, view, method, path):
    def broken(self, request):
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(view, method, broken)
    answer = api.request(method, path, json={"prompt": "a"})

    assert (answer.status_code, named(answer)[0]) == (500, "internal_error")
    assert "swordfish" not in answer.text
    assert "Traceback" not in answer.text


def test_a_foreign_host_name_is_400(client_for, server):
    """But for `/healthz` and `/readyz`, which load balancers ask by address."""
    for path in ("/v1/models", "/nothing"):
        answer = client_for(None).get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, named(answer)[0]) == (400, "invalid_request")


def test_what_strangers_send_is_no_traceback_in_the_log(client_for, server, caplog):
    form = {f"field{number}": "" for number in range(1001)}
    cookie = {"Cookie": f"csrftoken={'a' * 32}"}
    assert client_for(None).post("/login/", data=form, headers=cookie).status_code == 400
    assert not caplog.records


def test_the_admins_own_404_is_a_page(api):
    answer = api.get("/admin/nothing/")
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
def test_a_failure_has_both_shapes(status):
    failure = Failure(status, Code.INVALID_REQUEST, "No.", {"prompt": ["No."]}, retry_after=3)

    problem = failure.body("/chat/new/message/")
    assert (problem["status"], problem["errors"]) == (status, {"prompt": ["No."]})
    error = failure.body("/v1/models")["error"]
    assert (error["param"], error["message"], error["code"]) == ("prompt", "No.", "invalid_request")
    assert failure.headers == {"Retry-After": "3"}


def subclasses(kind: type) -> set[type]:
    """Every kind of error below this one."""
    return {kind}.union(*(subclasses(below) for below in kind.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(subclasses(modelhost.ModelHostError), key=str))
def test_every_error_of_the_model_host_has_a_place_on_the_wire(kind):
    error = kind("field", "No.") if kind is modelhost.BadSampling else kind("No.")
    failure = failure_of(error)

    assert failure.message == "No."
    abstract = kind in (modelhost.ModelHostError, modelhost.RequestRefused)
    assert (failure.status == 500) == abstract
    assert (failure.retry_after is not None) == (failure.status in (429, 503))


def test_nested_mistakes_are_named_by_their_path():
    error = ValidationError(
        {"history": [{}, {"role": ["Unknown."]}], "stop": {"non_field_errors": ["No."]}}
    )
    assert failure_of(error).fields == {"history.1.role": ["Unknown."], "stop": ["No."]}
    assert failure_of(ValidationError("No.")).fields == {"body": ["No."]}


def test_an_exception_of_nobodys_has_no_failure():
    assert failure_of(RuntimeError("x")) is None
    assert failure_of(Throttled()).code == "too_many_requests"


@pytest.mark.parametrize("path", ["/chat/new/message/", "/v1/chat/completions"])
def test_a_database_that_does_not_answer_is_503_and_no_mistake_of_the_caller(
    api, engine, path, monkeypatch
):
    def refuse(*args, **options):
        raise OperationalError("too many clients already")

    monkeypatch.setattr(acceptance, "_store", refuse)
    body = {"prompt": "a"} if path.startswith("/chat") else {"messages": USER}
    answer = api.post(path, json=body)

    assert (answer.status_code, named(answer)[0]) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert "too many" not in answer.text


@pytest.mark.parametrize("path", ["/api/schema/", "/api/docs/"])
def test_what_can_only_be_read_says_so(client_for, path):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        assert client_for(None).request(method, path).status_code == 405


def test_a_name_that_the_server_does_not_go_by_is_named(client_for):
    answer = client_for(None).get("/v1/models", headers={"Host": "192.168.1.5"})

    assert answer.status_code == 400
    assert "ALLOWED_HOSTS" in answer.json()["error"]["message"]


def test_who_shows_no_key_is_told_how(client_for):
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "llms_key"}):
        answer = client_for(None).get("/chat/get/messages/", headers=headers)
        assert answer.status_code == 401
        assert "Authorization: Bearer" in answer.json()["detail"]


def test_every_wrong_field_is_named_at_once(api, engine):
    body = {"prompt": 1, "temperature": 3, "nonsense": 1, "history": [{"role": "x"}]}
    errors = api.post("/chat/new/message/", json=body).json()["errors"]
    assert set(errors) == {
        "prompt",
        "temperature",
        "nonsense",
        "history.0.role",
        "history.0.content",
    }

    body = {"messages": [], "n": 2, "logprobs": True, "user": 5, "nonsense": 1, "client": {}}
    problem = failure_of(_refusal(CompletionSerializer, body))
    assert set(problem.fields) == {"messages", "n", "logprobs", "user", "nonsense", "client"}
    assert problem.fields["logprobs"] == ["Only false is served."]


def _refusal(serializer, body) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        serializer(data=body).is_valid(raise_exception=True)
    return caught.value


def test_an_error_is_json_also_where_the_answer_would_be_yaml(api, client_for):
    for refused, status in (
        (api.post("/api/schema/", json={}), 405),
        (client_for("nonsense").get("/api/schema/"), 401),
    ):
        assert refused.status_code == refused.json()["status"] == status
        assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")

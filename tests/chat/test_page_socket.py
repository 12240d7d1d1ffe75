"""The WebSocket from a page in a real browser, which can send nothing but its session."""

from __future__ import annotations

from chat.models import Response
from tests.fakes import ScriptedEngine

pytest_plugins = ["tests.browser"]

ASK = """(address) => new Promise((resolve) => {
    const socket = new WebSocket(address.replace("http", "ws") + "/ws/chat"), told = [];
    socket.onopen = () => socket.send(JSON.stringify({type: "ask", prompt: "Say it"}));
    socket.onclose = (event) => resolve({told, code: event.code});
    socket.onmessage = ({data}) => {
        told.push(JSON.parse(data));
        if (told.at(-1).type === "done") socket.close(1000);
    };
})"""


def test_our_own_page_asks_with_the_session_of_its_user(signed_in, server, serve, staff):
    serve(ScriptedEngine("Hello", ", ", "世界 🌍"))
    signed_in.goto("/")
    heard = signed_in.evaluate(ASK, server.address)

    assert heard["code"] == 1000
    texts = [message["text"] for message in heard["told"] if message["type"] == "text"]
    assert "".join(texts) == "Hello, 世界 🌍"
    row = Response.objects.get()
    assert (row.text, row.user, row.surface) == ("Hello, 世界 🌍", staff, "websocket")


def test_a_page_that_is_not_ours_gets_no_socket(signed_in, server, serve, problems):
    serve(ScriptedEngine())
    signed_in.goto("/")
    elsewhere = signed_in.context.new_page()
    elsewhere.route(
        "**/*", lambda route: route.fulfill(body="<p>Elsewhere", content_type="text/html")
    )
    elsewhere.goto("http://127.0.0.1:8999/")  # the same host, so that the cookie comes along
    heard = elsewhere.evaluate(ASK, server.address)

    assert (heard["code"], heard["told"]) == (1006, [])
    assert not Response.objects.exists()
    problems.excuse("WebSocket connection")

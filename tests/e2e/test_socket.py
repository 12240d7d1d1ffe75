"""The WebSocket under each server that may serve it: stopped, cut, left and taken up again."""

from __future__ import annotations

import signal
import time

import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.test_deploy import LONG, SERVERS
from tests.sockets import said, socket_to
from tests.web import eventually
from tests.witness import witness_text


@pytest.mark.parametrize("server", SERVERS)
def test_stop_means_stop_in_the_middle_of_an_answer(deploy, server):
    deployed = deploy(server, drain=0)
    with socket_to(deployed, deployed.key) as socket:
        message_id = socket.ask(LONG)["message_id"]
        told = [socket.hear_text()]
        socket.tell("stop", message_id=message_id)
        before = time.monotonic()
        told += socket.rest()
        seconds = time.monotonic() - before

    assert seconds < 1
    assert told[-1]["finish_reason"] == "cancelled"
    assert deployed.rows() == [("stopped", said(told))]


@pytest.mark.parametrize("server", SERVERS)
def test_a_client_that_is_gone_ends_what_only_it_waited_for(deploy, server):
    deployed = deploy(server, drain=0)
    with socket_to(deployed, deployed.key) as socket:
        socket.ask(LONG, on_disconnect="stop")
        socket.hear_text()
        socket.connection.socket.close()
        before = time.monotonic()
        eventually(lambda: deployed.rows()[0][0] == "stopped")

    assert time.monotonic() - before < 2
    assert "Traceback" not in deployed.printed


@pytest.mark.parametrize("server", SERVERS)
def test_the_next_process_goes_on_and_its_reader_sees_no_seam(deploy, server):
    first = deploy(server, drain=0)
    with socket_to(first, first.key) as socket:
        message_id = socket.ask("alpha 60")["message_id"]
        told = [socket.hear_text()]
        first.signal(signal.SIGTERM)
        while (message := socket.hear_or_close()) is not None:
            told.append(message)
        code, seconds = first.end()
    assert (code, seconds < 5) == (0, True), first.printed
    assert "Traceback" not in first.printed

    second = deploy(server, drain=0)
    with socket_to(second, second.key) as socket:
        socket.tell("follow", message_id=message_id, after=told[-1]["cursor"])
        told += socket.rest()
    with second.client() as client:
        seed = client.get(f"/api/responses/{message_id}/").json()["seed"]
    assert said(told) == witness_text("alpha", seed, 60)
    assert told[-1]["type"] == "done"


@pytest.mark.parametrize("server", SERVERS)
def test_strangers_and_other_addresses_are_refused_without_a_word_in_the_log(deploy, server):
    deployed = deploy(server, drain=0)
    for key, path in ((None, "/ws/chat"), ("llms_wrong", "/ws/chat"), (deployed.key, "/ws/no")):
        with pytest.raises(InvalidStatus) as refused, socket_to(deployed, key, path=path):
            pass
        assert refused.value.response.status_code == 403
    assert "Traceback" not in deployed.printed

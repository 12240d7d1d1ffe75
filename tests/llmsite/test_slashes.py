"""A path without its final slash: the same request is sent again, to where it was meant."""

from __future__ import annotations


def test_what_was_posted_without_the_final_slash_is_not_lost(api, user):
    answer = api.post("/api/conversations", json={"title": "Kept"}, follow_redirects=True)

    assert answer.status_code == 201
    assert answer.json()["title"] == "Kept"


def test_nor_is_it_while_debugging(api, user, settings):
    settings.DEBUG = True
    answer = api.post("/api/conversations", json={"title": "Kept"}, follow_redirects=True)

    assert answer.status_code == 201

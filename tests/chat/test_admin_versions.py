"""A conversation that branches: from its transcript every row of it can be found."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.admin.versions import Versions
from chat.models import Conversation, Prompt, Response

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Tree:
    """A conversation that is planted turn by turn, a second between each two."""

    def __init__(self, user) -> None:
        self.user = user
        self.conversation = Conversation.objects.create(user=user, title="Branches")
        self._at = NOON

    def ask(self, said: str, follows: Response | None = None) -> Prompt:
        """One more prompt, behind this response or at the beginning."""
        return Prompt.objects.create(
            conversation=self.conversation, content=said, follows=follows, created_at=self._later()
        )

    def answer(self, prompt: Prompt, text: str) -> Response:
        """One more response to this prompt."""
        return Response.objects.create(
            prompt=prompt, user=self.user, text=text, status="done", created_at=self._later()
        )

    def _later(self) -> datetime:
        self._at += timedelta(seconds=1)
        return self._at


@pytest.fixture
def tree(user) -> Tree:
    return Tree(user)


def shown(administrator, tree: Tree, response: object = None) -> str:
    """The transcript, the newest path or the one through this response."""
    query = f"?response={response}" if response else ""
    answer = administrator.get(f"/admin/chat/conversation/{tree.conversation.pk}/change/{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def links(page: str) -> set[str]:
    """The ids of the responses whose paths are offered."""
    return set(re.findall(r'href="\?response=([0-9a-f-]+)"', page))


def test_a_path_without_branches_offers_no_others(administrator, tree):
    tree.answer(tree.ask("first"), "FIRST")

    assert "other version" not in shown(administrator, tree)


def test_another_answer_to_the_same_prompt_is_offered(administrator, tree):
    prompt = tree.ask("first")
    old = tree.answer(prompt, "THE OLD ONE")
    tree.answer(prompt, "THE NEW ONE")
    page = shown(administrator, tree)

    assert "THE OLD ONE" not in page
    assert "1 other version:" in page
    assert links(page) == {str(old.pk)}
    other = shown(administrator, tree, old.pk)
    assert "THE OLD ONE" in other
    assert "THE NEW ONE" not in other


def test_an_edited_prompt_is_offered_with_what_came_after_it(administrator, tree):
    root = tree.answer(tree.ask("root"), "ROOT")
    before = tree.answer(tree.ask("before the edit", root), "BEFORE")
    end = tree.answer(tree.ask("then", before), "THE END OF THE OLD PATH")
    tree.answer(tree.ask("once edited", root), "EDITED")
    tree.answer(tree.ask("twice edited", root), "AGAIN")
    page = shown(administrator, tree)

    assert "2 other versions:" in page
    assert str(end.pk) in links(page)
    old = shown(administrator, tree, end.pk)
    assert "before the edit" in old
    assert "THE END OF THE OLD PATH" in old


def test_a_path_that_is_not_the_newest_says_so(administrator, tree):
    prompt = tree.ask("first")
    old, new = tree.answer(prompt, "OLD"), tree.answer(prompt, "NEW")

    assert "The newest path" in shown(administrator, tree, old.pk)
    assert "The newest path" not in shown(administrator, tree, new.pk)
    assert "The newest path" not in shown(administrator, tree)


def test_a_path_through_a_turn_goes_on_to_its_newest_end(administrator, tree):
    first = tree.answer(tree.ask("first"), "FIRST")
    tree.answer(tree.ask("second", first), "SECOND")

    assert "SECOND" in shown(administrator, tree, first.pk)


@pytest.mark.parametrize("response", ["nonsense", uuid.uuid4(), "''"])
def test_a_response_of_somewhere_else_shows_the_newest_path(administrator, tree, response):
    tree.answer(tree.ask("first"), "FIRST")

    assert "FIRST" in shown(administrator, tree, response)


def test_every_row_is_found_from_the_transcript(administrator, tree):
    todo = [tree.answer(tree.ask("root"), "ROOT")]
    for at in range(3):
        prompt = tree.ask(f"prompt {at}", todo[at])
        todo += [tree.answer(prompt, "one"), tree.answer(prompt, "other")]
    pages, seen = {None}, set()
    while pages:
        page = shown(administrator, tree, pages.pop())
        rows = set(re.findall(r"/admin/chat/response/([0-9a-f-]{36})/change/", page))
        pages |= links(page) - seen
        seen |= rows | links(page)

    assert seen == {str(row.pk) for row in todo}


def test_the_responses_of_a_conversation_are_a_list(administrator, tree, other):
    prompt = tree.ask("first")
    rows = [tree.answer(prompt, "OLD"), tree.answer(prompt, "NEW")]
    elsewhere = Tree(other)
    elsewhere.answer(elsewhere.ask("second"), "SECOND")
    address = f"/admin/chat/response/?conversation={tree.conversation.pk}"

    assert address in shown(administrator, tree)
    assert list(administrator.get(address).context["cl"].result_list) == rows[::-1]
    nothing = administrator.get("/admin/chat/response/?conversation=nonsense")
    assert list(nothing.context["cl"].result_list) == []


def test_a_responses_page_leads_to_its_own_path(administrator, tree):
    prompt = tree.ask("first")
    old = tree.answer(prompt, "OLD")
    tree.answer(prompt, "NEW")
    page = administrator.get(f"/admin/chat/response/{old.pk}/change/").content.decode()

    assert f"/conversation/{tree.conversation.pk}/change/?response={old.pk}" in page


def test_a_tree_takes_the_same_queries_for_any_number_of_branches(administrator, tree):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            shown(administrator, tree)
        return len(captured)

    prompt = tree.ask("first")
    tree.answer(prompt, "FIRST")
    shown(administrator, tree)
    few = queries()
    for at in range(30):
        tree.answer(tree.ask(str(at), tree.answer(prompt, str(at))), str(at))

    assert queries() == few


def test_what_is_asked_while_the_tree_is_read_breaks_nothing(tree):
    first = tree.answer(tree.ask("Hi"), "Hello")
    asked = 0

    def ask_meanwhile(execute, *query):
        nonlocal asked
        result = execute(*query)
        asked += 1
        if asked == 1:
            tree.answer(tree.ask("And?", first), "Well")
        return result

    with connection.execute_wrapper(ask_meanwhile):
        versions = Versions(tree.conversation)

    assert versions.newest() == first.pk


def test_nor_does_what_is_removed_meanwhile(tree):
    tree.answer(tree.ask("Hi"), "Hello")
    asked = 0

    def remove_meanwhile(execute, *query):
        nonlocal asked
        asked += 1
        if asked == 2:
            tree.conversation.delete()
        return execute(*query)

    with connection.execute_wrapper(remove_meanwhile):
        Versions(tree.conversation)

    assert not Conversation.objects.exists()

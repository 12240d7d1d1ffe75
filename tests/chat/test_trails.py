"""The way to a response: its rows and no others, however many branches a conversation has."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import Http404

from chat.conversations.trails import Tree, trail
from chat.models import Prompt, Response
from tests.chat.rows import answered


def branches(user: Any, number: int) -> list[Response]:
    """Answers behind the same answer: "opening", then "0" and so on."""
    opening = answered(user, "opening")
    conversation = opening.prompt.conversation
    return [
        opening,
        *(
            answered(user, str(at), conversation=conversation, follows=opening)
            for at in range(number)
        ),
    ]


def texts(leaf: Response) -> list[str]:
    """What is said on the way to it."""
    return [row.content if isinstance(row, Prompt) else row.text for row in trail(leaf)]


def test_a_way_begins_where_the_conversation_does(user):
    *_, leaf = branches(user, 3)
    last = answered(user, "end", conversation=leaf.prompt.conversation, follows=leaf)

    assert texts(last) == ["Hi", "opening", "Hi", "2", "Hi", "end"]
    assert trail(None) == []


def test_no_other_branch_is_read(user, django_assert_num_queries):
    opening, *_, leaf = branches(user, 40)
    with django_assert_num_queries(3):
        tree = Tree.leading_to([leaf.pk])

    assert tree.responses == {opening.pk: opening, leaf.pk: leaf}
    assert len(tree.prompts) == 2


def test_what_several_ways_share_is_read_once(user, django_assert_num_queries):
    opening, *leaves = branches(user, 3)
    elsewhere = answered(user, "elsewhere")
    with django_assert_num_queries(3):
        tree = Tree.leading_to([*(leaf.pk for leaf in leaves), elsewhere.pk])

    assert tree.responses.keys() == {opening.pk, elsewhere.pk, *(leaf.pk for leaf in leaves)}
    assert [row.pk for row in tree.trail(leaves[1])[1::2]] == [opening.pk, leaves[1].pk]


def test_without_a_leaf_nothing_is_asked(db, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert Tree.leading_to([]) == Tree()


def test_of_a_conversation_that_was_deleted_there_is_no_way(user):
    leaf = Response.objects.get(pk=branches(user, 1)[-1].pk)
    leaf.prompt.conversation.delete()

    with pytest.raises(Http404):
        trail(leaf)

"""Statements that are compiled once do what Django's own do."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import IntegrityError, models, transaction
from django.db.models.signals import post_save, pre_save

from chat.models import ApiKey, Conversation, Prompt, Response
from chat.statements import fetch, insert
from tests.chat.rows import answered

pytestmark = pytest.mark.django_db

MOMENT = datetime(2026, 11, 29, 15, 2, 59, 123456, tzinfo=UTC)


def some(field: models.Field[Any, Any], prompt: Prompt) -> Any:
    """A value that is not the field's default."""
    of_type: dict[type, Any] = {
        models.UUIDField: uuid.uuid4(),
        models.JSONField: {"ids": [1, 2], "said": 'a "quoted" 你好 \U0001f600'},
        models.DateTimeField: MOMENT,
        models.BooleanField: True,
        models.FloatField: 0.1,
        models.BigIntegerField: 2**53,
        models.PositiveIntegerField: 12,
        models.PositiveSmallIntegerField: 3,
        models.TextField: "line\nline 你好 %s",
    }
    if field.name in ("prompt", "user"):
        return {"prompt": prompt, "user": prompt.conversation.user}[field.name]
    if field.name == "api_key":
        return ApiKey.issue(user=prompt.conversation.user)[0]
    if field.choices:
        return field.choices[-1][0]  # type: ignore[index]
    return of_type.get(type(field), "short %s"[: getattr(field, "max_length", None)])


def full(prompt: Prompt) -> Response:
    """A response that has something of its own in every column."""
    fields = Response._meta.concrete_fields
    return Response(**{field.name: some(field, prompt) for field in fields})


def test_a_row_is_stored_with_all_that_it_says(user):
    prompt = answered(user, "Hi").prompt
    row = full(prompt)
    insert(row)
    stored = Response.objects.get(pk=row.pk)
    for field in Response._meta.concrete_fields:
        assert getattr(stored, field.attname) == getattr(row, field.attname), field.name


@pytest.mark.parametrize("made", ["insert", "save"])
def test_a_new_row_is_like_one_that_was_saved(user, made):
    prompt = answered(user, "Hi").prompt
    row = Response(prompt=prompt, user=user, surface="page")
    insert(row) if made == "insert" else row.save(force_insert=True)
    assert (row._state.adding, row._state.db) == (False, "default")
    row.text = "later"
    row.save()  # as the same row
    stored = Response.objects.filter(pk=row.pk).values().get()
    expected = {field.attname: field.get_default() for field in Response._meta.concrete_fields}
    expected |= {"id": row.pk, "prompt_id": prompt.pk, "user_id": user.pk, "surface": "page"}
    expected |= {"text": "later", "created_at": row.created_at}
    assert stored == expected


def test_whoever_listens_to_a_model_hears_of_its_rows(user):
    heard: list[tuple[str, Any, bool]] = []

    def before(sender: Any, instance: Any, **_: Any) -> None:
        heard.append(("before", instance, Conversation.objects.exists()))

    def after(sender: Any, instance: Any, created: bool, **_: Any) -> None:
        heard.append(("after", instance, created))

    pre_save.connect(before, sender=Conversation)
    post_save.connect(after, sender=Conversation)
    try:
        row = Conversation.objects.begin(user=user, title="Hi", system="")
    finally:
        pre_save.disconnect(before, sender=Conversation)
        post_save.disconnect(after, sender=Conversation)
    assert heard == [("before", row, False), ("after", row, True)]


def test_what_the_database_refuses_is_its_error(user):
    row = answered(user, "Hi")
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(Response(pk=row.pk, prompt=row.prompt, user=user, surface="page"))
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(Response(prompt=row.prompt, user=user, surface="page", status="asleep"))
    assert Response.objects.count() == 1


def test_a_row_is_found_with_the_one_that_it_points_at(user, django_assert_num_queries):
    made, _ = ApiKey.issue(user=user, name="one")
    ApiKey.issue(user=user, name="other")
    ApiKey.objects.filter(pk=made.pk).update(last_used_at=MOMENT)
    expected = ApiKey.objects.select_related("user").get(pk=made.pk)
    with django_assert_num_queries(1):
        found = fetch(ApiKey, "prefix", made.prefix, to="user")
        assert found is not None
        there = [vars(one) for one in (found, expected)]
        users = [vars(one.user) for one in (found, expected)]
    for ours, django in (there, users):
        ours, django = ({**one, "_state": None} for one in (ours, django))
        assert ours == django
        assert [type(value) for value in ours.values()] == [
            type(value) for value in django.values()
        ]
    found.user.first_name = "Ada"
    found.user.save()


def test_what_is_not_there_is_none(user):
    assert fetch(ApiKey, "prefix", "unknown", to="user") is None

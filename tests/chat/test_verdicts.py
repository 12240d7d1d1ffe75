"""Reviewers judge responses: on a response's page, one verdict each, which the list filters by."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import IntegrityError, transaction
from django.test import Client

from chat.admin.verdicts import VerdictForm
from chat.models import Judgement, Response, Verdict, judged
from tests.chat.rows import answered, left_behind

REVIEWER = ("view_response", "add_verdict")


@pytest.fixture
def row(user) -> Response:
    return answered(user, "It is Paris.")


@pytest.fixture
def reviewer(django_user_model) -> Callable[..., Client]:
    """Makes a signed in browser of somebody with these permissions."""

    def make(name: str = "eve", permissions: tuple[str, ...] = REVIEWER) -> Client:
        person = django_user_model.objects.create_user(name, is_staff=True)
        person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client()
        browser.force_login(person)
        return browser

    return make


def page_of(row: Response) -> str:
    return f"/admin/chat/response/{row.pk}/change/"


def judge(browser: Client, row: Response, **fields: str):
    """Send the form below the page."""
    return browser.post(f"/admin/chat/response/{row.pk}/judge/", fields, follow=True)


def judge_and_go_on(browser: Client, row: Response, kept: str):
    """The same with the other button, on a page that was reached from this list."""
    address = f"/admin/chat/response/{row.pk}/judge/?{kept}"
    return browser.post(address, {"value": "good", "next": "yes"})


def verdicts() -> list[tuple[str | None, str, str]]:
    """Who thinks what, and why."""
    rows = Verdict.objects.select_related("reviewer")
    return [(row.reviewer and row.reviewer.username, row.value, row.note) for row in rows]


def found(browser: Client, verdict: str) -> set[str]:
    """The texts that the list shows under this filter."""
    page = browser.get(f"/admin/chat/response/?verdict={verdict}")
    return {row.text for row in page.context["cl"].result_list}


def test_a_verdict_is_given_below_the_response(reviewer, row):
    browser = reviewer()
    assert f"/admin/chat/response/{row.pk}/judge/" in browser.get(page_of(row)).content.decode()
    answer = judge(browser, row, value="bad", note="Too short.")

    assert verdicts() == [("eve", "bad", "Too short.")]
    assert answer.redirect_chain == [(page_of(row), 302)]
    assert b"Your verdict is stored." in answer.content
    assert b"Too short." in answer.content
    row.refresh_from_db()
    assert row.text == "It is Paris.", "the record stays as it is"


def test_who_goes_on_comes_to_the_next_one_that_the_list_shows(reviewer, user, other):
    browser = reviewer()
    oldest, older = answered(user, "one"), answered(user, "two")
    answered(other, "somebody else's")
    left_behind(user, "Hel")
    newest = answered(user, "three")
    for shown, rows in (
        ({"user": "ada", "verdict": "none", "p": "9"}, (newest, older, oldest)),
        ({"user": "ada", "o": "0"}, (oldest, older, newest)),
    ):
        kept = urlencode({"_changelist_filters": urlencode(shown)})
        for row, following in pairwise(rows):
            answer = judge_and_go_on(browser, row, kept)
            assert answer["Location"] == f"{page_of(following)}?{kept}"
        answer = judge_and_go_on(browser, rows[-1], kept)
        assert answer["Location"] == f"/admin/chat/response/?{urlencode(shown)}"
    assert len(verdicts()) == 3


@pytest.mark.parametrize("order", ["", "o=0", "o=-0"])
def test_who_goes_on_leaves_out_none_of_one_moment(reviewer, user, order):
    browser = reviewer()
    moment = answered(user, "one").created_at
    for text in ("two", "three"):
        answered(user, text, created_at=moment)
    listed = browser.get(f"/admin/chat/response/?{order}").context["cl"].result_list
    for row, following in pairwise(listed):
        answer = judge_and_go_on(browser, row, urlencode({"_changelist_filters": order}))
        assert answer["Location"].startswith(page_of(following))


@pytest.mark.parametrize(
    "shown",
    ["", "nonsense__regex=1", "text__regex=x", "_to_field=x", "user=%00", "created_at_from=%00"],
)
def test_whoever_goes_on_from_no_list_has_judged_all_the_same(reviewer, row, shown):
    answer = judge_and_go_on(reviewer(), row, urlencode({"_changelist_filters": shown}))

    assert answer.status_code == 302
    assert len(verdicts()) == 1


def test_who_judges_again_replaces_their_own_only(reviewer, row):
    eve, bob = reviewer(), reviewer("bob")
    judge(eve, row, value="bad", note="Too short.")
    judge(bob, row, value="bad")
    page = judge(eve, row, value="good")

    assert verdicts() == [("bob", "bad", ""), ("eve", "good", "")]
    assert re.search(r'value="good"[^>]*checked', page.content.decode()), "the form shows one's own"


def test_a_verdict_can_be_taken_back(reviewer, row):
    eve, bob = reviewer(), reviewer("bob")
    judge(eve, row, value="good")
    judge(bob, row, value="good")
    judge(eve, row, withdraw="yes")

    assert verdicts() == [("bob", "good", "")]


def test_who_judged_is_noted_without_what_was_said(reviewer, row):
    browser = reviewer()
    judge(browser, row, value="good", note="It says Paris.")
    judge(browser, row, withdraw="yes")
    judge(browser, row, withdraw="yes")

    notes = LogEntry.objects.order_by("pk")
    assert [note.get_change_message() for note in notes] == ["Judged good.", "Verdict withdrawn."]
    assert not any("Paris" in f"{note.object_repr}{note.change_message}" for note in notes)


def test_what_staff_did_leads_to_the_row(reviewer, administrator, row):
    judge(reviewer(), row, value="bad")
    page = administrator.get("/admin/admin/logentry/").content.decode()

    assert "Judged bad." in page
    assert f'href="{page_of(row)}">response {str(row.pk)[:8]}</a>' in page


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, b"Verdict: This field is required."),
        ({"value": "fine"}, b"Verdict: Select a valid choice."),
        ({"value": "good", "note": "a" * 2001}, b"Note: Ensure this value has at most 2000"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(reviewer, row, fields, sentence):
    answer = judge(reviewer(), row, **fields)

    assert sentence in answer.content
    assert verdicts() == []


def test_who_may_only_look_has_no_form_and_is_refused(reviewer, row):
    browser = reviewer(permissions=("view_response",))
    page = browser.get(page_of(row))

    assert b"judge/" not in page.content
    assert judge(browser, row, value="good").status_code == 403
    assert verdicts() == []


def test_who_may_judge_but_not_look_is_refused(reviewer, row):
    browser = reviewer(permissions=("add_verdict",))

    assert judge(browser, row, value="good").status_code == 403
    assert verdicts() == []


def test_looking_at_the_forms_address_shows_the_page_and_judges_nothing(reviewer, row):
    kept = urlencode({"_changelist_filters": "verdict=none"})
    answer = reviewer().get(f"/admin/chat/response/{row.pk}/judge/?{kept}", follow=True)
    assert answer.redirect_chain == [(f"{page_of(row)}?{kept}", 302)]
    assert answer.status_code == 200
    assert Client().post(f"/admin/chat/response/{row.pk}/judge/").status_code == 302
    assert verdicts() == []


def test_who_had_to_log_in_before_judging_comes_back_to_the_page(django_user_model, reviewer, row):
    browser = reviewer()
    eve = django_user_model.objects.get(username="eve")
    eve.set_password("a long password")
    eve.save()  # which ends what was signed in
    answer = judge(browser, row, value="good")
    told = {"username": "eve", "password": "a long password"}
    answer = browser.post(answer.redirect_chain[-1][0], told, follow=True)

    assert answer.redirect_chain[-1][0] == page_of(row)
    assert b"It is Paris." in answer.content
    assert verdicts() == []


def test_what_is_still_answered_is_not_judged_yet(reviewer, user):
    browser, row = reviewer(), left_behind(user, "It is")

    assert b"judge/" not in browser.get(page_of(row)).content
    assert b"still being answered" in judge(browser, row, value="good").content
    assert verdicts() == []


def test_a_response_that_is_not_there_cannot_be_judged(reviewer, row):
    browser = reviewer()
    row_id = row.pk
    row.prompt.conversation.delete()

    assert browser.post(f"/admin/chat/response/{row_id}/judge/").status_code == 404


def test_a_response_that_is_removed_meanwhile_cannot_be_judged(reviewer, row, monkeypatch):
    valid = VerdictForm.is_valid

    def removed_then_valid(form: VerdictForm) -> bool:
        row.prompt.conversation.delete()
        return valid(form)

    monkeypatch.setattr(VerdictForm, "is_valid", removed_then_valid)
    assert judge(reviewer(), row, value="good").status_code == 404
    assert verdicts() == []


def test_the_list_shows_verdicts_and_filters_by_them(reviewer, user):
    eve, bob = reviewer(), reviewer("bob")
    good, bad, both, none = (answered(user, text) for text in ("good", "bad", "both", "none"))
    for browser, row, value in (
        (eve, good, "good"),
        (bob, good, "good"),
        (eve, bad, "bad"),
        (eve, both, "good"),
        (bob, both, "bad"),
    ):
        judge(browser, row, value=value)

    assert found(eve, "good") == {"good"}
    assert found(eve, "bad") == {"bad"}
    assert found(eve, "disputed") == {"both"}
    assert found(eve, "none") == {"none"}
    assert found(eve, "nonsense") == found(eve, "") == {"good", "bad", "both", "none"}
    assert none.verdicts.count() == 0


def test_the_list_asks_for_verdicts_once(reviewer, user, django_assert_max_num_queries):
    browser = reviewer()
    for at in range(10):
        judge(browser, answered(user, f"text {at}"), value="good")

    with django_assert_max_num_queries(16):
        page = browser.get("/admin/chat/response/")
    assert [row.verdicts.all()[0].value for row in page.context["cl"].result_list] == ["good"] * 10


def test_a_verdict_goes_with_its_response_and_outlives_its_reviewer(reviewer, user, row):
    other = answered(user, "It is Rome.")
    browser = reviewer()
    judge(browser, row, value="good")
    judge(browser, other, value="bad")
    row.prompt.conversation.delete()
    assert verdicts() == [("eve", "bad", "")]

    LogEntry.objects.all().delete()
    Verdict.objects.get().reviewer.delete()
    assert verdicts() == [(None, "bad", "")]
    assert set(judged(Response.objects.all(), Judgement.BAD)) == {other}


def test_the_database_knows_two_verdicts_and_one_of_each_reviewer(user, row):
    Verdict.objects.create(response=row, reviewer=user, value="good")
    for value, reviewer in (("good", user), ("fine", None)):
        with pytest.raises(IntegrityError), transaction.atomic():
            Verdict.objects.create(response=row, reviewer=reviewer, value=value)

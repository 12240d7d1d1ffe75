"""What an address of the admin may ask for; staff can be made to click a link."""

from __future__ import annotations

import pytest
from django.contrib.contenttypes.models import ContentType

from tests.chat.rows import answered

# In Python's `re`, which SQLite is given, this takes longer than anybody waits.
BACKTRACKING = "[^~]*[^~]*[^~]*~"


@pytest.mark.parametrize("lookup", ["regex", "iregex", "contains", "startswith", "iexact"])
@pytest.mark.parametrize(
    ("page", "field"),
    [
        ("chat/response", "text"),
        ("chat/response", "prompt__content"),
        ("chat/conversation", "system"),
        ("chat/apikey", "name"),
        ("auth/user", "username"),
        ("auth/user", "password"),
        ("auth/group", "name"),
    ],
)
def test_a_list_takes_no_lookup_that_its_filters_do_not_have(
    administrator, user, page, field, lookup
):
    answered(user, "a" * 5000)
    answer = administrator.get(f"/admin/{page}/", {f"{field}__{lookup}": BACKTRACKING})

    assert answer.status_code == 400
    assert answer["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "query",
    [
        "created_at__year=99999999999999999999",
        "stop__contains=x",
        "created_at__gte__regex=x",
        "api_key__digest__gt=0",
        "user__password__gt=p",
    ],
)
def test_nor_one_that_would_break_or_tell_secrets(administrator, user, query):
    answered(user, "Hi")

    assert administrator.get(f"/admin/chat/response/?{query}").status_code == 400


@pytest.mark.parametrize(
    "query", ["status__exact=done", "imported__exact=0", "period=today", "finish_reason=stop"]
)
def test_what_the_filters_ask_for_is_taken(administrator, user, query):
    answered(user, "Hi")

    assert administrator.get(f"/admin/chat/response/?{query}").status_code == 200


def test_users_are_filtered_as_ever(administrator):
    for query in ("is_staff__exact=1", "groups__id__exact=1", "q=root"):
        assert administrator.get(f"/admin/auth/user/?{query}").status_code == 200


@pytest.mark.parametrize("page", ["chat/response", "chat/conversation", "chat/apikey", "auth/user"])
def test_a_search_for_thousands_of_words_is_one_for_the_first(administrator, user, page):
    answered(user, "word")

    assert administrator.get(f"/admin/{page}/", {"q": "word " * 3000}).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "chat/response/?user=%00",
        "chat/response/?surface=%00",
        "chat/response/?model=a%00b",
        "chat/response/?api_key__id__exact=99999999999999999999999",
        "chat/response/?created_at_to=9999-12-31",
        "chat/response/?created_at_from=0001-01-01",
        "chat/conversation/?created_at_to=9999-12-31",
        "chat/response/?q=a%00b",
        "chat/apikey/?user=%00",
        "auth/user/?groups__id__exact=99999999999999999999999",
    ],
)
def test_what_no_database_can_read_is_no_error_of_ours(administrator, user, query):
    answered(user, "Hi")

    assert administrator.get(f"/admin/{query}", follow=True).status_code in (200, 400)


@pytest.mark.parametrize("chosen", ["x", "9" * 30, "a\0"])
def test_nor_are_rows_that_cannot_be_there(administrator, user, chosen):
    answered(user, "Hi")
    form = {"action": "stop", "_selected_action": chosen}

    assert administrator.post("/admin/chat/response/", form).status_code in (302, 400)


@pytest.mark.parametrize("page", ["zz", "0", "99"])
def test_nor_has_the_search_among_the_navigation_pages_that_there_are_not(administrator, page):
    assert administrator.get(f"/admin/search/?s=user&page={page}").status_code == 400
    assert b"Users" in administrator.get("/admin/search/?s=user").content


def test_an_address_of_a_row_by_what_is_no_id_is_refused(administrator, user):
    kind = ContentType.objects.get_for_model(answered(user, "Hi")).pk

    assert administrator.get(f"/admin/r/{kind}/zz/").status_code == 400

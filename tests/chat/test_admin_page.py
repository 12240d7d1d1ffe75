"""The log in the admin, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from chat.models import ApiKey, Prompt, Response, Verdict
from tests.chat.contrast import CONTRAST
from tests.fakes import ScriptedEngine

pytest_plugins = ["tests.browser"]

LOG = "/admin/chat/response/"
ROWS = "#result_list tbody tr"
FIELDS = """[...document.querySelectorAll(
    "#response_form :is(input:not([type=hidden]), textarea, select)")].map(it => it.name)"""
# Whether a value is no longer than its place in its line.
WITHIN = """(it) => {
    const right = (box) => box.getBoundingClientRect().right;
    return it.scrollWidth <= it.clientWidth && right(it) <= right(it.closest(".field-line"));
}"""
# Whether the first of three words stands at the right.
FIRST_IS_RIGHT = """(it) => {
    const [first, second] = [[0, 5], [6, 13]].map(([from, to]) => {
        const range = document.createRange();
        range.setStart(it.firstChild, from);
        range.setEnd(it.firstChild, to);
        return range.getBoundingClientRect();
    });
    return first.left > second.left;
}"""
HOSTILE = '<script>alert(1)</script><img src="https://evil.example/x">'


@pytest.fixture
def log(api, serve):
    """Three responses: one done, one failed, one whose text would like to be markup."""
    serve(ScriptedEngine("Paris.", "\nOn the Seine."))
    first = api.post("/chat/new/message/", json={"prompt": "The capital of France?"}).json()
    serve(ScriptedEngine("Rom", "e", fail_at=1))
    api.post("/chat/new/message/", json={"prompt": "意大利的首都？"})
    serve(ScriptedEngine(HOSTILE))
    body = {"prompt": "Show\nmarkup", "conversation": first["conversation"]}
    api.post("/chat/new/message/", json=body)
    return first


def test_the_list_shows_filters_and_finds(signed_in, log):
    signed_in.goto(LOG)
    expect(signed_in.locator(ROWS)).to_have_count(3)
    expect(signed_in.locator(ROWS).nth(0)).to_contain_text("<script>")
    expect(signed_in.locator(ROWS).nth(2)).to_contain_text("The capital of France?")
    expect(signed_in.locator(ROWS).nth(2)).to_contain_text("ada")

    signed_in.goto(f"{LOG}?status__exact=failed")
    expect(signed_in.locator(ROWS)).to_have_count(1)
    expect(signed_in.locator(ROWS)).to_contain_text("意大利的首都？")

    for term in ("Seine", "capital of", log["message_id"]):
        signed_in.goto(LOG)
        signed_in.locator("#searchbar").fill(term)
        signed_in.locator("#searchbar").press("Enter")
        expect(signed_in.locator(ROWS)).to_have_count(1)
        expect(signed_in.locator(ROWS)).to_contain_text("The capital of France?")


def test_a_response_shows_everything_in_full_and_nothing_to_change(signed_in, log):
    signed_in.goto(LOG)
    signed_in.locator(ROWS).nth(2).get_by_role("link").first.click()

    texts = signed_in.locator(".chat-text:visible")
    expect(texts.nth(0)).to_have_text("The capital of France?")
    assert texts.nth(1).inner_text() == "Paris.\nOn the Seine."  # its lines are lines
    for heading in ("Asked", "Answered", "Figures", "Sampling", "Who"):
        expect(signed_in.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    row = Response.objects.get(pk=log["message_id"])
    expect(signed_in.get_by_text(str(row.seed))).to_be_visible()
    assert signed_in.locator("[name=_save]").count() == 0
    assert signed_in.evaluate(FIELDS) == ["value", "value", "note"], "a verdict, and nothing else"


def test_a_verdict_is_a_click_away_from_what_it_is_about(signed_in, log):
    page = f"{LOG}{log['message_id']}/change/"
    signed_in.goto(page)
    signed_in.get_by_label("Bad").check()
    signed_in.get_by_label("Why, if you like").fill(HOSTILE)
    signed_in.get_by_role("button", name="Judge", exact=True).click()
    expect(signed_in.get_by_text("Your verdict is stored.")).to_be_visible()

    verdict = Verdict.objects.get()
    assert (verdict.response_id.hex, verdict.value) == (log["message_id"], "bad")
    assert verdict.note == HOSTILE
    expect(signed_in.locator(".chat-verdicts .chat-text")).to_have_text(HOSTILE)
    signed_in.get_by_role("button", name="Withdraw it").click()
    expect(signed_in.get_by_text("Your verdict is withdrawn.")).to_be_visible()
    assert not Verdict.objects.exists()


def test_a_conversation_reads_as_a_transcript(signed_in, log):
    signed_in.goto(f"/admin/chat/conversation/{log['conversation']}/change/")

    turns = signed_in.locator(".chat-transcript section")
    expect(turns.locator("header strong")).to_have_text(["user", "assistant"] * 2)
    expect(turns.locator(".chat-text")).to_have_text(
        ["The capital of France?", "Paris.\nOn the Seine.", "Show\nmarkup", HOSTILE]
    )
    turns.nth(1).get_by_role("link").click()
    expect(signed_in.get_by_text(log["message_id"])).to_be_visible()


def test_the_other_lists_open(signed_in, log):
    for name in ("conversation", "apikey"):
        signed_in.goto(f"/admin/chat/{name}/")
        expect(signed_in.locator(ROWS).first).to_be_visible()


def test_a_word_without_end_leaves_every_column_in_sight(signed_in, log):
    figures = {"model": "SmolLM2-135M-Instruct", "prompt_tokens": 37, "completion_tokens": 60}
    Response.objects.update(text="x" * 400, status="stopped", **figures)
    Prompt.objects.update(content="y" * 400)
    ApiKey.objects.update(name="notebook")
    for row in Response.objects.all():
        Verdict.objects.create(response=row, reviewer=row.user, value="good")
    signed_in.goto(LOG)

    expect(signed_in.locator(ROWS).first).to_contain_text("yyy")
    right = signed_in.locator("#result_list").evaluate("it => it.getBoundingClientRect().right")
    assert right <= 1280
    signed_in.set_viewport_size({"width": 390, "height": 800})
    label = "it => getComputedStyle(it, '::before').width"
    widths = {
        float(signed_in.locator(f"{ROWS} .field-{name}").first.evaluate(label)[:-2])
        for name in ("prompt_text", "response_text")
    }
    assert min(widths) > 40, "a word is not broken into letters"
    inner, outer = signed_in.locator("#result_list").evaluate(
        "it => [it.scrollWidth, it.clientWidth]"
    )
    assert inner <= outer, "nothing is cut off at the right"


def test_long_names_and_ids_stay_beside_each_other(signed_in, log):
    names = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "adapter": "lora@" + "b" * 64}
    Response.objects.update(revision="a" * 40, **names)
    ApiKey.objects.update(name="k" * 100)
    signed_in.goto(f"{LOG}{log['message_id']}/change/")

    for value in ("a" * 40, names["model"], names["adapter"], "k" * 100, log["message_id"]):
        shown = signed_in.locator(".readonly", has_text=value)
        assert shown.evaluate(WITHIN), f"{value} runs into its neighbour"
    assert signed_in.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_small_print_can_be_read(signed_in, log):
    row = Response.objects.get(pk=log["message_id"])
    Verdict.objects.create(response=row, reviewer=row.user, value="good")
    for scheme in ("light", "dark"):
        signed_in.emulate_media(color_scheme=scheme)
        signed_in.goto(f"{LOG}{row.pk}/change/")
        assert signed_in.locator(".chat-verdicts span").evaluate(CONTRAST) >= 4.5
        signed_in.goto(f"/admin/chat/conversation/{log['conversation']}/change/")
        assert signed_in.locator(".chat-transcript time").first.evaluate(CONTRAST) >= 4.5


def test_what_is_written_from_right_to_left_is_in_its_order(signed_in, log):
    Prompt.objects.update(content="مرحبا English نص")
    Response.objects.update(text="-")
    signed_in.goto(LOG)
    assert signed_in.locator(f"{ROWS} .field-prompt_text").first.evaluate(FIRST_IS_RIGHT)


def test_who_judges_stays_with_the_list_they_came_from(signed_in, log):
    signed_in.goto(f"{LOG}?verdict=none&user=ada")
    signed_in.locator(ROWS).nth(2).get_by_role("link").first.click()
    why = signed_in.get_by_label("Why, if you like")
    why.fill("Because\nof this")
    signed_in.get_by_role("button", name="Judge", exact=True).click()
    expect(signed_in.get_by_text("This field is required.")).to_be_visible()
    expect(why).to_have_value("Because\nof this")

    signed_in.get_by_label("Good").check()
    signed_in.get_by_role("button", name="Judge", exact=True).click()
    expect(signed_in.get_by_text("Your verdict is stored.")).to_be_visible()
    assert Verdict.objects.get().note.splitlines() == ["Because", "of this"]
    signed_in.get_by_role("button", name="Withdraw it").click()
    signed_in.get_by_title("Go back").click()
    signed_in.wait_for_url(f"**{LOG}?verdict=none&user=ada")


def test_who_goes_on_judges_the_list_from_its_top_to_its_end(signed_in, log):
    signed_in.goto(f"{LOG}?verdict=none&user=ada")
    count = signed_in.locator(ROWS).count()
    signed_in.locator(ROWS).first.get_by_role("link").first.click()
    for left in reversed(range(count)):
        signed_in.get_by_label("Good").check()
        signed_in.get_by_role("button", name="Judge and go on").click()
        follows = "this is the next response." if left else "the list has no further one."
        expect(signed_in.get_by_text(f"Your verdict is stored; {follows}")).to_be_visible()
    signed_in.wait_for_url(f"**{LOG}?verdict=none&user=ada")

    expect(signed_in.get_by_text("There are no responses like that.")).to_be_visible()
    assert Verdict.objects.count() == count > 1


def test_a_name_without_end_leaves_every_column_in_sight(signed_in, log, user):
    ApiKey.objects.update(name="k" * 100)
    user.username = "n" * 150
    user.save()
    for name in ("apikey", "conversation"):
        signed_in.goto(f"/admin/chat/{name}/")
        expect(signed_in.locator(ROWS).first).to_contain_text("nnn")
        right = signed_in.locator("#result_list").evaluate("it => it.getBoundingClientRect().right")
        assert right <= 1280, name


def test_a_version_leads_to_its_path(signed_in, log, api, serve):
    prompt = Response.objects.get(pk=log["message_id"]).prompt_id
    serve(ScriptedEngine("Paris, again."))
    api.post(f"/api/prompts/{prompt}/responses/", json={})
    signed_in.goto(f"/admin/chat/conversation/{log['conversation']}/change/")

    versions = signed_in.locator(".chat-versions")
    expect(versions).to_contain_text("1 other version")
    versions.get_by_role("link").click()
    expect(signed_in.get_by_text("On the Seine.")).to_be_visible()
    signed_in.get_by_role("link", name="The newest path").click()
    expect(signed_in.get_by_text("Paris, again.")).to_be_visible()


def test_a_key_is_chosen_as_one_types(signed_in, log):
    signed_in.goto(LOG)
    signed_in.locator("#changelist a", has_text="Filters").first.click()
    signed_in.locator("[name=api_key__id__exact] + .select2").click()
    signed_in.locator(".select2-search__field").fill("default")
    signed_in.locator(".select2-results__option", has_text="default").click()
    signed_in.get_by_role("button", name="Apply Filters").click()

    expect(signed_in.locator(ROWS)).to_have_count(3)
    assert "api_key__id__exact=" in signed_in.url


def test_a_name_that_can_be_changed_has_the_room_that_there_is(signed_in, log):
    key = ApiKey.objects.get()
    signed_in.goto(f"/admin/chat/apikey/{key.pk}/change/")
    assert signed_in.get_by_label("Name").bounding_box()["width"] > 400


def test_links_can_be_read_in_the_dark(signed_in, log):
    signed_in.emulate_media(color_scheme="dark")
    signed_in.goto(f"{LOG}{log['message_id']}/change/")
    assert signed_in.locator(".readonly .text-link").first.evaluate(CONTRAST) >= 4.5


def test_rights_are_chosen_without_scrolling_to_the_side(signed_in, user):
    signed_in.goto(f"/admin/auth/user/{user.pk}/change/")
    expect(signed_in.locator(".selector").first).to_be_visible()
    assert signed_in.evaluate("document.documentElement.scrollWidth") <= 1280

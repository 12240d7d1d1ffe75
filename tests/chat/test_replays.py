"""`manage.py replay`: logged prompts once more, and whether their answers are still the same."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from chat.conversations import personas
from chat.log.replays import AT_ONCE, Agreement, replayable, replays
from chat.management.commands import replay as module
from chat.models import Prompt, Response
from modelhost.errors import PromptTooLong
from tests.chat.rows import answered, ask, left_behind
from tests.fakes import ScriptedEngine


def logged(user: Any, text: str = "Hi", **options: Any) -> Response:
    """A prompt that was answered by the process's model."""
    accepted = ask(user, text, **options)
    assert accepted.live.wait(10)
    return Response.objects.select_related("prompt__conversation").get(pk=accepted.response_id)


def replayed(row: Response, engine: ScriptedEngine) -> Any:
    """The row once more."""
    [replay] = replays([row], engine)  # type: ignore[arg-type]
    return replay


def replay(*arguments: str) -> list[str]:
    """Run the command: its lines."""
    out = io.StringIO()
    try:
        call_command("replay", *arguments, stdout=out)
    finally:
        lines = out.getvalue().splitlines()
    return lines


def test_an_answer_that_comes_again_is_the_same(user, engine):
    row = logged(user)
    before = (row.text, Response.objects.count())

    assert replayed(row, engine).agreement is Agreement.SAME
    assert engine.prompts[0] == engine.prompts[1]
    assert engine.samplings[0] == engine.samplings[1], "seed and all"
    assert (row_of_again(row).text, Response.objects.count()) == before, "nothing is stored"


def row_of_again(row: Response) -> Response:
    return Response.objects.get(pk=row.pk)


def test_a_later_turn_is_asked_behind_what_was_said(user, engine):
    first = logged(user, "One?")
    second = logged(user, "Two?", conversation=first.prompt.conversation)

    assert replayed(second, engine).agreement is Agreement.SAME
    assert "One?" in engine.prompt_text()
    assert engine.prompts[1] == engine.prompts[2]


def test_what_differs_is_shown_from_there_on(user, serve):
    row = logged_by(serve, user, "It is", " Paris.")
    replay = replayed(row, ScriptedEngine("It is", " Rome."))

    assert replay.agreement is Agreement.DIFFERS
    assert (replay.before, replay.now) == ("Paris.", "Rome.")


def test_an_answer_that_ends_earlier_differs(user, serve):
    row = logged_by(serve, user, "It is Paris.")
    replay = replayed(row, ScriptedEngine("It is"))

    assert (replay.agreement, replay.now) == (Agreement.DIFFERS, "")


def logged_by(serve: Any, user: Any, *pieces: str) -> Response:
    """A prompt that was answered by a model that says this."""
    serve(ScriptedEngine(*pieces))
    return logged(user)


def test_what_was_stopped_must_be_the_same_so_far(user, engine):
    stopped = answered(user, "Hel", status="stopped", token_ids=[*map(ord, "Hel")], max_tokens=50)
    as_asked(stopped, engine)
    assert replayed(stopped, engine).agreement is Agreement.SAME
    assert engine.samplings[-1].max_tokens == 3

    stopped.token_ids = [*map(ord, "Hal")]
    assert replayed(stopped, engine).agreement is Agreement.DIFFERS


def as_asked(row: Response, engine: ScriptedEngine) -> None:
    """Its columns as this engine would have left them."""
    row.model, row.revision = engine.card.name, engine.card.revision
    row.prompt_tokens = len("user: Hi\n")


def test_another_models_answer_is_compared_as_text(user, engine):
    row = logged(user)
    row.model, row.token_ids, row.prompt_tokens = "another", [1, 2, 3], 1
    assert replayed(row, engine).agreement is Agreement.SAME

    row.text = "Hello, moon"
    other = replayed(row, engine)
    assert (other.agreement, other.before, other.now) == (Agreement.DIFFERS, "moon", "world")


def test_with_another_persona_since_then_it_is_asked_under_its_own(user, engine):
    row = logged(user)
    personas.change(row.prompt.conversation, system="You are brief.")
    row = Response.objects.get(pk=row.pk)

    assert replayed(row, engine).agreement is Agreement.SAME
    assert engine.prompts[0] == engine.prompts[1]


def test_a_prompt_that_is_another_one_now_cannot_be_asked_again(user, engine):
    row = logged(user)
    Prompt.objects.update(content="Hi there")
    replay = replayed(Response.objects.get(pk=row.pk), engine)

    assert replay.agreement is Agreement.IMPOSSIBLE
    assert "has 15 now" in replay.reason
    assert len(engine.prompts) == 1, "nothing is generated for it"


def test_where_other_turns_fit_it_cannot_be_asked_again(user, engine):
    first = logged(user, "One?")
    second = logged(user, "Two?", conversation=first.prompt.conversation)
    second.omitted = [first.prompt_id.hex]

    assert "turns fit" in replayed(second, engine).reason


def test_what_the_model_refuses_now_is_named(user, engine, monkeypatch):
    row = logged(user)

    def refuse(*_: Any, **__: Any) -> None:
        raise PromptTooLong("The prompt does not fit.")

    monkeypatch.setattr(engine, "render", refuse)
    assert replayed(row, engine).reason == "The prompt does not fit."


def test_what_was_deleted_meanwhile_cannot_be_asked_again(user, engine):
    first = logged(user, "One?")
    second = logged(user, "Two?", conversation=first.prompt.conversation)
    assert second.prompt.follows == first
    first.prompt.conversation.delete()

    assert replayed(second, engine).reason == "What led to it was deleted meanwhile."


def test_an_engine_that_dies_is_no_difference(user, serve):
    row = logged_by(serve, user, "Hel", "lo")
    replay = replayed(row, ScriptedEngine("Hel", "lo", fail_at=1))

    assert (replay.agreement, replay.reason) == (Agreement.IMPOSSIBLE, "The engine died.")


def test_some_are_generated_together_and_come_in_their_order(user, engine):
    rows = [logged(user, f"Prompt {at}") for at in range(AT_ONCE + 3)]
    together: list[int] = []
    count = engine.submit

    def counting(*arguments: Any, **options: Any) -> Any:
        together.append(len(engine.tickets) - len(rows))
        return count(*arguments, **options)

    engine.submit = counting  # type: ignore[method-assign]
    done = replays(rows, engine)  # type: ignore[arg-type]
    first = next(done)

    assert len(together) == AT_ONCE, "no more are begun before the first is told"
    assert [first.response, *(each.response for each in done)] == rows


def test_the_command_says_what_came_of_each_and_of_all(user, engine):
    row = logged(user, "What is it?")
    [line, summary] = replay()

    assert line == f"same       {row.pk.hex} What is it?"
    assert summary == "1 same, 0 differs, 0 impossible."


def test_the_command_fails_where_an_answer_differs(user, engine):
    row = logged(user)
    Response.objects.update(token_ids=[*map(ord, "Help!")])
    out = io.StringIO()

    with pytest.raises(CommandError, match="0 same, 1 differs, 0 impossible"):
        call_command("replay", stdout=out)
    assert f"differs    {row.pk.hex} before: 'p!' now: 'lo, world'" in out.getvalue()


def test_a_terminal_shows_what_a_prompt_says_and_does_not_do_it(user, engine):
    row = logged(user, "北京的天气 \x1b]0;mine\x07\x1b[2J \x9b2J\u202e é")

    assert replay()[0] == (
        f"same       {row.pk.hex} 北京的天气 \\x1b]0;mine\\x07\\x1b[2J \\x9b2J\\u202e é"
    )


def test_a_reason_is_shown_in_the_same_way(user, engine, monkeypatch):
    row = logged(user)

    def refuse(*_: Any, **__: Any) -> None:
        raise PromptTooLong("No room for\n'天气\x1b[2J'.")

    monkeypatch.setattr(engine, "render", refuse)
    assert replay()[0] == f"impossible {row.pk.hex} No room for\\n'天气\\x1b[2J'."


def test_the_command_leaves_out_what_was_not_generated_here_to_its_end(user, engine):
    answered(user, "sent", imported=True)
    answered(user, "", status="failed")
    left_behind(user, "Hel")

    assert replay() == ["0 same, 0 differs, 0 impossible."]


def test_the_command_takes_the_newest_that_the_filters_leave(user, other, engine):
    for at in range(3):
        logged(user, f"Prompt {at}")
    logged(other, "Theirs")

    lines = replay("--user", "ada", "--limit", "2")
    assert [line.rpartition(" ")[2] for line in lines[:-1]] == ["2", "1"]


def test_few_rows_are_in_memory_at_a_time(user, engine, monkeypatch):
    rows = [logged(user, f"Prompt {at}") for at in range(5)]
    monkeypatch.setattr(module, "BATCH", 2)
    taken = module.newest(replayable(Response.objects.all()), 4)

    assert next(taken).pk == rows[4].pk
    rows[3].prompt.conversation.delete()  # of the batch that was read
    rows[2].prompt.conversation.delete()
    assert [row.pk for row in taken] == [rows[3].pk, rows[1].pk]


def test_a_limit_beyond_every_database_is_none(user, engine):
    logged(user)

    assert replay("--limit", "9" * 30)[-1] == "1 same, 0 differs, 0 impossible."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--limit", "0"], "--limit"), (["--since", "never"], "--since")],
)
def test_the_command_refuses_nonsense(db, engine, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        replay(*arguments)


def test_a_prompt_with_earlier_turns_is_asked_with_them(user, engine):
    row = logged(user)
    Prompt.objects.update(earlier=[{"role": "user", "content": "Before"}])
    row = Response.objects.select_related("prompt").get(pk=row.pk)
    row.prompt_tokens = len("user: Before\nuser: Hi\n")

    assert replayed(row, engine).agreement is Agreement.SAME
    assert engine.prompt_text() == "user: Before\nuser: Hi\n"

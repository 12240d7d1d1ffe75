"""The command line: JSON lines in, JSON lines out, one answer per line in their order."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from modelhost import __main__ as command_line

HI = {"turns": [{"role": "user", "content": "hi"}]}


def run_process(*arguments, lines=(), **environment):
    return subprocess.run(
        [sys.executable, "-m", "modelhost", *arguments],
        input="".join(f"{line}\n" for line in lines),
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.fixture
def run(monkeypatch, capsys, tiny_folder):
    """Run a command in this process: its exit code and the objects that it printed."""

    def run_here(command, *lines, model=tiny_folder):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{text}\n" for text in texts)))
        code = command_line.main([command, "--model", str(model), "--device", "cpu"])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run_here


# As processes


def test_generate_answers_every_line_in_order_though_some_are_wrong(tiny_folder):
    long = {**HI, "max_tokens": 120}
    done = run_process(
        "generate", "--model", str(tiny_folder), "--device", "cpu",
        lines=[
            json.dumps(long),
            "not json",
            json.dumps({**HI, "max_tokens": 3, "temperature": 1.0, "seed": 7}),
            json.dumps({**HI, "temperature": "hot"}),
            json.dumps({"token_ids": [10, 11, 12], "max_tokens": 4}),
            "",
            '{"turns": [{"role": "user", "content": "你好 👋"}], "max_tokens": 2}',
        ],
    )  # fmt: skip

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [len(answer.get("token_ids", ())) for answer in answers] == [120, 0, 3, 0, 4, 2]
    assert [set(answer) == {"error"} for answer in answers] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    assert answers[4]["prompt_ids"] == [10, 11, 12]
    for answer in answers:
        assert answer.get("text", "") == "".join(answer.get("pieces", ()))
        assert answer.get("finish_reason", "length") == "length"
    assert "Traceback" not in done.stderr


def test_render_and_its_errors_are_utf8_whatever_the_locale(tiny_folder):
    command = [sys.executable, "-m", "modelhost", "render", "--model", str(tiny_folder)]
    lines = [json.dumps({"turns": [{"role": "user", "content": "é"}]}, ensure_ascii=False).encode()]
    lines += [
        b'{"turns": [{"role": "user", "content": "\xff"}]}',
        b'{"turns": "\xe4\xbd\xa0"}',
        b"\xff",
    ]

    done = subprocess.run(
        command,
        input=b"\n".join(lines),
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=60,
        check=False,
    )

    answers = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert done.returncode == 1
    assert [set(answer) for answer in answers] == [{"token_ids", "omitted"}, *[{"error"}] * 3]
    assert b"Traceback" not in done.stderr


def test_a_hub_id_that_is_not_here_is_a_sentence_and_exit_code_1(tmp_path):
    done = run_process(
        "inspect", "--model", "org/absent", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)
    )

    assert done.returncode == 1
    assert done.stdout == ""
    *noise, sentence = done.stderr.splitlines()  # torchao, where it is installed, talks at import
    assert sentence.startswith("org/absent is not in the local cache")
    assert "Traceback" not in "".join(noise)


# In this process


def test_render_gives_ids_and_what_was_left_out(run):
    history = [{"role": role, "content": "word " * 150} for role in ("user", "assistant")]

    code, answers = run("render", HI, {"turns": [*history, *HI["turns"]], "max_tokens": 200})

    assert code == 0
    assert answers[0]["omitted"] == []
    assert answers[1] == {"token_ids": answers[0]["token_ids"], "omitted": [0, 1]}


def test_inspect_describes_without_loading(run):
    code, (answer,) = run("inspect")

    assert code == 0
    assert answer["architecture"] == "LlamaForCausalLM"
    assert answer["context_length"] == 512


def test_all_lines_right_is_exit_code_0(run):
    code, answers = run("generate", {**HI, "max_tokens": 2}, {**HI, "max_tokens": 1})

    assert code == 0
    assert [len(answer["token_ids"]) for answer in answers] == [2, 1]


def test_no_lines_are_no_answers(run):
    assert run("generate") == (0, [])


def test_more_lines_than_a_server_would_hold_at_once_are_all_answered(run):
    code, answers = run("generate", *[{"token_ids": [10], "max_tokens": 1}] * 300)

    assert code == 0
    assert len(answers) == 300


def test_a_seed_repeats_an_answer_and_no_seed_does_not(run):
    warm = {**HI, "max_tokens": 20, "temperature": 1.5}
    seeded = {**warm, "seed": 5}

    _, answers = run("generate", seeded, seeded, warm, warm)

    ids = [tuple(answer["token_ids"]) for answer in answers]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_stop_may_be_one_text_or_several(run):
    _, (whole,) = run("generate", {**HI, "max_tokens": 60})
    stop = whole["text"][10:12]

    _, answers = run(
        "generate",
        {**HI, "max_tokens": 60, "stop": stop},
        {**HI, "max_tokens": 60, "stop": ["never to be seen", stop]},
        {**HI, "max_tokens": 60, "stop": None, "seed": None},
    )

    until = whole["text"][: whole["text"].index(stop)]
    assert [answer["text"] for answer in answers] == [until, until, whole["text"]]
    assert [answer["finish_reason"] for answer in answers] == ["stop", "stop", "length"]


def test_an_answer_without_a_length_gets_what_the_context_has_left(run):
    code, (answer,) = run("generate", {"token_ids": [10] * 500, "max_tokens": None})

    assert code == 0
    assert len(answer["token_ids"]) == 12


WRONG_TURNS = [
    {},
    {"turns": None},
    {"turns": "hi"},
    {"turns": {"role": "user", "content": "hi"}},
    {"turns": []},
    {"turns": ["hi"]},
    {"turns": [None]},
    {"turns": [[]]},
    {"turns": [{"content": "hi"}]},
    {"turns": [{"role": "user"}]},
    {"turns": [{"role": "user", "content": None}]},
    {"turns": [{"role": "user", "content": 5}]},
    {"turns": [{"role": "user", "content": ["hi"]}]},
    {"turns": [{"role": "robot", "content": "hi"}]},
    {"turns": [{"role": 1, "content": "hi"}]},
    {"turns": [{"role": "user", "content": "\ud800"}]},
    {"turns": [{"role": "user", "content": "hi", "metadata": 5}]},
    {"turns": [{"role": "user", "content": "hi", "metadata": "x"}]},
    {"turns": [{"role": "user", "content": "hi", "tools": "x"}]},
    {"turns": [{"role": "user", "content": "hi", "tools": [{}]}]},
    {"turns": [{"role": "user", "content": "x" * 600}]},
]
WRONG_LENGTHS = [{**HI, "max_tokens": value} for value in (0, -1, 512, 10**30, 2.5, "5", True, [5])]
WRONG_LINES = ["{", "null", "[]", '"hi"', "5", "[" * 100_000, "nul", "{'a': 1}", "9" * 5000]
WRONG_SAMPLING = [
    *({**HI, "temperature": value} for value in ("hot", None, -1, 3, True, [1], 10**400)),
    *({**HI, "top_p": value} for value in ("1", None, 0, 2)),
    *({**HI, "top_k": value} for value in ("1", None, -1, 286, 1.5)),
    *({**HI, "seed": value} for value in ("1", 1.5, 1 << 64)),
    *({**HI, "stop": value} for value in (5, [5], [None], [""], ["x"] * 17, {"a": 1}, "")),
    *({"token_ids": value} for value in ("1", [], [-1], [285], [1.5], ["1"], [None], 5)),
    {"token_ids": [10] * 600},
]  # fmt: skip
NAN_LINES = [
    f'{{"token_ids": [10], "temperature": {value}}}' for value in ("NaN", "Infinity", "1e999")
]


def test_render_says_what_is_wrong_with_each_line_and_answers_the_others(run):
    wrong = [*WRONG_TURNS, *WRONG_LENGTHS, *WRONG_LINES]

    code, answers = run("render", HI, *wrong, HI)

    check(code, answers, wrong)


def test_generate_says_what_is_wrong_with_each_line_and_answers_the_others(run):
    right = {**HI, "max_tokens": 3}
    wrong = [*WRONG_TURNS, *WRONG_LENGTHS, *WRONG_LINES, *WRONG_SAMPLING, *NAN_LINES]

    code, answers = run("generate", right, *wrong, right)

    check(code, answers, wrong)


def check(code, answers, wrong):
    """The first and the last answer are right and equal; those between are sentences."""
    assert code == 1
    assert len(answers) == len(wrong) + 2
    assert answers[0] == answers[-1]
    assert answers[0]["token_ids"]
    for line, answer in zip(wrong, answers[1:-1], strict=True):
        assert set(answer) == {"error"}, line
        assert answer["error"].endswith("."), answer


def test_the_field_that_is_wrong_is_named(run):
    _, answers = run(
        "generate",
        {},
        {"turns": [{"role": "user"}]},
        {**HI, "temperature": "hot"},
        {**HI, "top_k": None},
    )

    assert [answer["error"] for answer in answers] == [
        "The field turns is missing.",
        "The field content is missing.",
        "The field temperature must be a number.",
        "The field top_k must be a whole number.",
    ]


@pytest.mark.parametrize("command", ["render", "generate", "inspect"])
def test_a_model_that_cannot_be_loaded_is_a_sentence_and_exit_code_1(command, capsys, tmp_path):
    code = command_line.main([command, "--model", str(tmp_path), "--device", "cpu"])

    assert code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path} has no config.json, so it is not a model folder. Check the path.\n" in err


def test_a_device_that_is_none_is_a_sentence_and_exit_code_1(tiny_folder, capsys):
    code = command_line.main(["inspect", "--model", str(tiny_folder), "--device", "toaster"])

    assert code == 1
    assert capsys.readouterr().err == "'toaster' is not a device. Use auto, cpu, cuda or cuda:0.\n"


def test_a_command_that_is_none_shows_the_usage(capsys):
    with pytest.raises(SystemExit) as leaving:
        command_line.main(["sing"])

    assert leaving.value.code == 2
    assert "render|generate|inspect" in capsys.readouterr().err

"""Progress: stages that can be read from anywhere and drawn on a terminal."""

from __future__ import annotations

import threading

from modelhost.progress import Progress, Snapshot


def test_nothing_has_begun_at_first():
    assert Progress().snapshot == Snapshot("", 0, 0, "")


def test_a_stage_counts_in_its_unit():
    progress = Progress()
    progress.begin("Loading weights", total=8, unit="tensor")
    progress.advance()
    progress.advance(3)

    assert progress.snapshot == Snapshot("Loading weights", 4, 8, "tensor")
    assert progress.snapshot.fraction == 0.5


def test_a_stage_of_unknown_length_has_no_fraction():
    progress = Progress()
    progress.begin("Looking")
    progress.advance(5)

    assert progress.snapshot.fraction is None


def test_a_stage_may_learn_its_length_later():
    progress = Progress()
    progress.begin("Downloading")
    progress.advance(5)
    progress.resize(20)

    assert progress.snapshot.fraction == 0.25


def test_a_stage_that_runs_over_is_whole_and_no_more():
    assert Snapshot("x", 12, 10).fraction == 1.0


def test_a_new_stage_begins_at_nothing():
    progress = Progress()
    progress.begin("One", total=2)
    progress.advance(2)
    progress.begin("Two", total=4)

    assert progress.snapshot == Snapshot("Two", 0, 4, "")


def test_many_threads_that_advance_lose_no_count():
    progress = Progress()
    progress.begin("Loading", total=8000)

    def work():
        for _ in range(1000):
            progress.advance()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert progress.snapshot.done == 8000


def test_without_a_terminal_nothing_is_drawn(capfd):
    progress = Progress()
    progress.begin("Loading weights", total=2)
    progress.advance(2)
    progress.end()

    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_each_stage_draws_a_bar_on_stderr(capsys):
    progress = Progress(terminal=True)
    progress.begin("Looking for the model")
    progress.begin("Downloading", unit="file")
    progress.resize(20)
    progress.advance(20)
    progress.begin("Loading weights", total=2, unit="tensor")
    progress.advance(2)
    progress.end()
    progress.end()

    out, err = capsys.readouterr()
    assert out == ""
    assert "Looking for the model" in err
    assert "Downloading: 100%" in err
    assert "20/20" in err
    assert "Loading weights: 100%" in err


def test_a_librarys_bar_that_iterates_counts_here(capfd):
    progress = Progress()
    progress.begin("Loading weights")

    items = list(progress.tqdm_class()(["a", "b", "c"], total=3, desc="theirs"))

    assert items == ["a", "b", "c"]
    assert progress.snapshot == Snapshot("Loading weights", 3, 3, "")
    assert capfd.readouterr() == ("", "")


def test_a_librarys_bar_that_is_updated_by_hand_counts_here():
    progress = Progress()
    progress.begin("Downloading", unit="B")

    with progress.tqdm_class()(total=100, unit="B", unit_scale=True) as bar:
        bar.update(40)
        bar.update(None)
        bar.set_description("theirs")

    assert progress.snapshot == Snapshot("Downloading", 40, 100, "B")


def test_a_librarys_bar_over_nothing_is_empty():
    assert list(Progress().tqdm_class()()) == []

import io
import shutil
from pathlib import Path

from rich.console import Console

from voxelseg.commands.display import counting_bar, preparing_bar, say, say_left_out, training_bar
from voxelseg.data.layouts import read_dataset
from voxelseg.train.loop.trainer import Progress


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, legacy_windows=False)


def state(share, **changes):
    return Progress(
        **{"share": share, "step": 7, "loss": 0.5, "score": None, "elapsed_s": 10.0, "left_s": 3725.4} | changes
    )


def test_a_command_says_what_it_wrote_and_what_may_follow():
    shown = console(terminal=False)
    say(shown, "Wrote [a] plan.", ["train", Path("my data")], ["predict", "RUN"])
    assert shown.file.getvalue() == "Wrote [a] plan.\nNext:\n  voxelseg train 'my data'\n  voxelseg predict RUN\n"
    say(None, "silent")


def test_cases_that_a_layout_left_out_are_named(tiny_msd, tmp_path):
    data = shutil.copytree(tiny_msd, tmp_path / "Task01_Tiny")
    shown = console(terminal=False)
    say_left_out(shown, read_dataset(data))
    assert shown.file.getvalue() == ""
    (data / "labelsTr" / "tiny_2.nii.gz").unlink()
    say_left_out(shown, read_dataset(data))
    assert f"1 case has problems with their files (tiny_2); `voxelseg check {data}`" in shown.file.getvalue()
    say_left_out(None, read_dataset(data))


def test_bars_are_silent_without_a_console_and_without_a_terminal():
    shown = console(terminal=False)
    for where in (None, shown):
        with counting_bar(where, "checking", total=3) as update:
            update(1)
            update(1.5, 4, note="case_2")
    with training_bar(None, "fold 0") as show:
        show(state(0.5))
    assert shown.file.getvalue() == ""


def test_brackets_in_a_case_are_shown_as_they_are():
    shown = console(terminal=True)
    with counting_bar(shown, "predicting", total=3) as update:
        update(1, note="case [left] [/x]")
    assert "case [left] [/x]" in shown.file.getvalue()


def test_a_bar_shows_how_many_cases_are_done_and_which_is_in_work():
    shown = console(terminal=True)
    with counting_bar(shown, "predicting", total=3) as update:
        update(1.5, note="case_2")
    assert "predicting" in shown.file.getvalue()
    assert "1/3" in shown.file.getvalue()
    assert "case_2" in shown.file.getvalue()


def test_a_training_without_a_terminal_says_ten_times_how_far_it_is():
    shown = console(terminal=False)
    with training_bar(shown, "training fold 0") as show:
        for step in range(1, 1001):
            show(state(step / 1000, step=step, score=0.25 if step > 500 else None))
    lines = shown.file.getvalue().splitlines()
    assert len(lines) == 11  # the first step, and each tenth
    assert lines[1] == "training fold 0   10%  step 100  loss 0.500  1:02:05 left"
    assert lines[-1] == "training fold 0  100%  step 1000  loss 0.500  Dice 0.250  1:02:05 left"


def test_a_training_in_a_terminal_shows_a_bar():
    shown = console(terminal=True)
    with training_bar(shown, "training fold 0") as show:
        show(state(0.5))
    text = shown.file.getvalue()
    assert "training fold 0" in text
    assert "50%  step 7  loss 0.500" in text


def test_what_is_prepared_is_shown_on_a_terminal_only():
    for terminal in (True, False):
        shown = console(terminal=terminal)
        with preparing_bar(shown, "masked-clusters") as update:
            update("clusterer [3]", 0.5)
        assert ("clusterer [3]" in shown.file.getvalue()) == terminal
    with preparing_bar(None, "masked-clusters") as update:
        update("clusterer 3", 0.5)


def test_the_score_of_a_training_is_called_what_it_is():
    shown = console(terminal=False)
    with training_bar(shown, "pre-training", score="score") as show:
        show(state(0.5, score=0.25))
    assert "loss 0.500  score 0.250" in shown.file.getvalue()

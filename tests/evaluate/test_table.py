import io
import math

from rich.console import Console

from voxelseg.evaluate import ClassScore, Evaluation, class_table


def rendered(evaluation):
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(class_table(evaluation))
    return console.export_text()


def score(case, name, dice):
    metrics = {"dice": dice, "surface_dice": dice, "hd95_mm": 10 * dice}
    return ClassScore(case, name, metrics, 1.0, 1.0)


def test_table_shows_mean_spread_and_count_of_each_class_and_the_mean():
    text = rendered(
        Evaluation((score("a", "liver", 0.5), score("b", "liver", 0.7), score("a", "spleen", 0.9)), tolerance_mm=2.0)
    )
    assert "Scores of 2 cases" in text
    assert "0.600 ± 0.141" in text  # standard deviation of 0.5 and 0.7
    assert "6.00 ± 1.41" in text
    assert "surface Dice at 2 mm" in text
    assert "0.750" in text  # mean of 0.6 and 0.9


def test_undefined_scores_are_dashes():
    nan = math.nan
    empty = ClassScore("a", "liver", {"dice": nan, "surface_dice": nan, "hd95_mm": nan}, 0.0, 0.0)
    text = rendered(Evaluation((empty,), tolerance_mm=1.0))
    assert "nan" not in text
    assert "–" in text


def test_notes_are_shown_below_the_table():
    assert "Left out: z." in rendered(
        Evaluation((score("a", "liver", 0.5),), tolerance_mm=1.0, notes=("Left out: z.",))
    )


def test_brackets_in_names_and_notes_are_shown_as_they_are():
    text = rendered(
        Evaluation((score("a", "kidney [left]", 0.5), score("a", "[/x]", 0.5)), 1.0, notes=("Left out: [b], [/c].",))
    )
    assert all(words in text for words in ("kidney [left]", "[/x]", "Left out: [b], [/c]."))

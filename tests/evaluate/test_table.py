import io
import math
import re
from dataclasses import replace

from rich.console import Console

from voxelseg.evaluate import ClassScore, Evaluation, class_table, cross_validation_table
from voxelseg.evaluate.cross_validation import CrossValidation, FoldScores
from voxelseg.evaluate.intervals import bootstrap_intervals
from voxelseg.metrics import METRICS
from voxelseg.predict.postprocess import Postprocessing


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
    assert "Surface Dice at 2 mm" in re.sub(r"\s+", " ", text)
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


def cross_validation(**changes):
    before = Evaluation((score("a", "liver", 0.5), score("b", "liver", 0.7)), 1.0, ("Seen [once].",))
    after = Evaluation((score("a", "liver", 0.6), score("b", "liver", 0.7)), 1.0)
    patients = {"a": "a", "b": "b"}
    made = CrossValidation(
        inputs={},
        folds={"0": FoldScores(1, dict.fromkeys(METRICS, 0.5)), "1": FoldScores(1, dict.fromkeys(METRICS, 0.7))},
        patients=2,
        pooled=before,
        intervals=bootstrap_intervals(before, patients),
        postprocessing=Postprocessing(foreground=True, classes=("liver",)),
        candidates=(),
        postprocessed=after,
        postprocessed_intervals=bootstrap_intervals(after, patients),
    )
    return replace(made, **changes)


def table_text(found):
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(cross_validation_table(found))
    return re.sub(r"\s+", " ", console.export_text())


def test_a_cross_validation_is_shown_before_and_after_with_intervals():
    text = table_text(cross_validation())
    assert "2 held-out cases of 2 patients in 2 folds" in text
    assert "0.600 │ 0.000 to 1.000 │ 0.650 │ 0.015 to 1.000" in text  # no interval leaves what a Dice can be
    assert "folds: 0.500 to 0.700, standard deviation 0.141" in text
    assert "of all classes together only the largest component is kept; then only the largest component of each" in text
    assert "chosen on the cases that these scores are of" in text
    assert "Seen [once]." in text


def test_without_a_postprocessing_only_the_scores_are_shown():
    none = {"postprocessed": None, "postprocessed_intervals": {}}
    chosen_none = table_text(cross_validation(postprocessing=Postprocessing(), **none))
    assert "Postprocessed" not in chosen_none
    assert "Postprocessing: none" in chosen_none
    assert "ostprocess" not in table_text(cross_validation(postprocessing=None, **none))

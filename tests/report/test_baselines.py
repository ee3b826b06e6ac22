import pytest

from voxelseg.report.baselines import Family, draw_scores, families


def epochs(**scores):
    """Epochs with the values of each score, one after the other."""
    number = len(next(iter(scores.values())))
    return [
        {"epoch": epoch, "validation_scores": {name.replace("_", " "): scores[name][epoch] for name in scores}}
        for epoch in range(number)
    ]


def test_a_score_is_shown_with_its_baselines():
    (found,) = families(
        epochs(
            score=[0.1, 0.4],
            accuracy=[0.1, 0.4],
            accuracy_of_the_nearest_visible_slice=[0.3, 0.3],
            accuracy_by_chance=[0.2, 0.2],
            label_entropy=[0.9, 0.9],
        )
    )  # the score is the accuracy, and the entropy of labels that stay as they are is no news
    assert found.name == "accuracy"
    assert found.baselines == {"the nearest visible slice": ([0, 1], [0.3, 0.3]), "chance": ([0, 1], [0.2, 0.2])}
    assert found.in_words() == (
        "Accuracy on held-out crops: 0.4, better than what is reached without learning "
        "(the nearest visible slice 0.3; chance 0.2)."
    )


def test_of_an_error_less_is_better():
    (score, error) = families(epochs(score=[-0.1], error=[0.5], error_of_the_mean=[0.4], error_of_the_median=[0.6]))
    assert error.in_words() == (
        "Error on held-out crops: 0.5, better than the median, but not than the mean (the mean 0.4; the median 0.6)."
    )
    assert score.baselines == {"guessing": ([0], [0.0])}
    assert "no better than what is reached without learning" in score.in_words()


def test_of_two_scores_that_a_baseline_might_belong_to_the_longer_named_one_counts():
    found = families(
        epochs(
            accuracy=[0.5], permutation_accuracy=[0.2], permutation_accuracy_by_chance=[0.1], accuracy_by_chance=[0.4]
        )
    )
    assert {family.name: list(family.baselines) for family in found} == {
        "accuracy": ["chance"],
        "permutation accuracy": ["chance"],
    }


def test_epochs_without_a_value_are_left_out():
    log = [
        {"epoch": 0, "validation_scores": None},
        {"epoch": 1, "validation_scores": {"accuracy": None, "accuracy by chance": 0.5}},
        {"epoch": 2, "validation_scores": {"accuracy": 0.75, "accuracy by chance": 0.5}},
        {"epoch": 3},
    ]
    (found,) = families(log)
    assert found.curve == ([2], [0.75])
    assert families([]) == []


def test_a_score_that_changes_without_a_baseline_is_shown_too():
    (found,) = families(epochs(sharpness=[0.5, 0.6]))
    assert found.in_words() == "Sharpness on held-out crops: 0.6; there is no baseline for it."


@pytest.mark.parametrize("number", [1, 3])
def test_a_drawing_has_a_line_for_the_score_and_each_baseline(number):
    curve = (list(range(number)), [0.5] * number)
    title, drawing = draw_scores(Family("accuracy", curve, {"chance <1>": curve, "prior": curve}), 2)
    assert title == "Accuracy"
    assert 'aria-label="Accuracy"' in drawing
    for words in ("this training", "chance &lt;1&gt;", "prior", "epoch"):
        assert words in drawing

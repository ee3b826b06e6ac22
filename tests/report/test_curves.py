import re

import pytest
from matplotlib.figure import Figure

from voxelseg.report.curves import learning_curves, styled, to_svg
from voxelseg.report.run import Fold, read_run


def test_loss_dice_and_rate_are_drawn(run_folder):
    drawings = dict(learning_curves(read_run(run_folder).folds, ("liver", "spleen")))
    assert list(drawings) == ["Loss", "Running Dice", "Learning rate"]
    assert all(word in drawings["Running Dice"] for word in ("liver", "spleen", "mean"))
    assert all(word in drawings["Loss"] for word in ("training", "validation"))


def test_several_folds_have_a_line_each(two_fold_run):
    drawings = dict(learning_curves(read_run(two_fold_run).folds, ("liver", "spleen")))
    assert all(f"fold {name}" in drawings["Running Dice"] for name in ("0", "1", "10"))


def test_ids_of_the_drawings_differ(run_folder):
    ids = [
        set(re.findall(r'\bid="([^"]+)"', drawing)) for _, drawing in learning_curves(read_run(run_folder).folds, ())
    ]
    assert all(ids)
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]


def test_every_reference_inside_a_drawing_has_its_target(run_folder):
    for _, drawing in learning_curves(read_run(run_folder).folds, ("liver", "spleen")):
        targets = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', drawing)
        assert {a or b for a, b in targets} <= set(re.findall(r'\bid="([^"]+)"', drawing))


def test_nothing_is_drawn_before_the_first_epoch():
    assert learning_curves([Fold("0", (), None, {})], ("liver",)) == []


def test_a_curve_without_values_is_left_out():
    fold = Fold("0", ({"epoch": 0, "loss": None, "lr": 1e-3},), None, {})
    assert [title for title, _ in learning_curves([fold], ("liver",))] == ["Learning rate"]


@pytest.mark.parametrize("name", ["$x_1$", "肝臓", "_hidden", "a<b"])
def test_any_class_name_can_be_drawn(name):
    epochs = tuple({"epoch": n, "validation_dice": {name: 0.5}, "mean_dice": 0.5} for n in range(2))
    drawings = dict(learning_curves([Fold("0", epochs, None, {})], (name,)))
    assert "<b" not in drawings["Running Dice"].replace("<bdi", "")


def test_many_classes_are_drawn_without_names():
    names = [f"organ {index}" for index in range(20)]
    epochs = tuple({"epoch": n, "validation_dice": dict.fromkeys(names, 0.5), "mean_dice": 0.5} for n in range(2))
    drawing = dict(learning_curves([Fold("0", epochs, None, {})], names))["Running Dice"]
    assert "organ" not in drawing
    assert "mean" in drawing


def test_a_line_marks_where_another_stage_begins():
    epochs = tuple({"epoch": n, "loss": 1.0, "stage": f"kernel {3 if n < 2 else 5}"} for n in range(4))
    (_, drawing), *_ = learning_curves([Fold("0", epochs, None, {})], ())
    assert "kernel 5" in drawing
    assert "kernel 3" not in drawing
    plain = tuple({"epoch": n, "loss": 1.0} for n in range(4))
    (_, without), *_ = learning_curves([Fold("0", plain, None, {})], ())
    assert drawing.count("<path") > without.count("<path")


def test_a_title_with_quotes_stays_one_attribute():
    with styled():
        figure = Figure(figsize=(2, 1))
        figure.text(0.5, 0.5, "a $b$ 肝")
    drawing = to_svg(figure, prefix="x", title='the "best" & <first>')
    assert drawing.startswith('<svg role="img" aria-label="the &#34;best&#34; &amp; &lt;first&gt;"')
    assert "a $b$ 肝" in drawing  # texts stay texts, whatever the style is outside

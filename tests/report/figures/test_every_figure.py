"""What all figures of a comparison promise: any names, any numbers, nothing cut off, and a text in their place."""

import io
import math
import re

import numpy as np
import pytest

from voxelseg.compare.trade_off import relative
from voxelseg.report.curves import styled, to_svg
from voxelseg.report.figures.bubbles import describe_bubbles, draw_bubbles
from voxelseg.report.figures.classes import describe_classes, draw_classes
from voxelseg.report.figures.forest import Difference, describe_forest, draw_forest
from voxelseg.report.figures.fusion import describe_fusion, draw_fusion
from voxelseg.report.figures.learning import describe_learning, describe_updates, draw_learning, draw_updates
from voxelseg.report.figures.look import Estimate, short
from voxelseg.report.figures.organ_volume import (
    describe_volume_differences,
    describe_volume_scores,
    draw_volume_differences,
    draw_volume_scores,
)
from voxelseg.report.figures.pareto import describe_pareto, draw_pareto
from voxelseg.report.figures.ranks import describe_ranks, draw_ranks
from voxelseg.report.figures.scores import describe_scores, draw_scores
from voxelseg.report.figures.stability import describe_stability, draw_stability
from voxelseg.report.figures.trade_off import describe_trade_off, draw_trade_off

NAN = math.nan
TWELVE = (
    "unet", "_hidden", "$x_1$", "肝臓 network", "a<b & \"c\"", "mednext_s_kernel5_grown_from_kernel3_seed_7",
    "mednext_s_kernel5_grown_from_kernel3_seed_8", "e2enet", "logonet", "nnU-Net v2 (3d_fullres, its own environment)",
    "swin_unetr", "x",
)  # fmt: skip
CASES = {"one": TWELVE[:1], "two": TWELVE[:2], "five": TWELVE[:5], "twelve": TWELVE}
CLASSES = ("liver", "gallbladder", "portal and splenic veins", "left adrenal gland")


def estimates(names, kind):
    if kind == "missing":
        return dict.fromkeys(names, Estimate(NAN))
    spread = 0.0 if kind == "equal" else 0.01
    return {name: Estimate(0.8 + spread * place, 0.78, 0.95, (0.8, 0.81)) for place, name in enumerate(names)}


def costs(names, kind):
    if kind == "missing":
        return dict.fromkeys(names)
    return {name: 7.0 if kind == "equal" else 1.7 ** (place + 1) for place, name in enumerate(names)}


def ranks(names, kind):
    found = draw_ranks, describe_ranks
    middle = (len(names) + 1) / 2
    values = {"missing": [NAN] * len(names), "equal": [middle] * len(names), "usual": range(1, len(names) + 1)}[kind]
    return found, (dict(zip(names, map(float, values), strict=True)), NAN if kind == "missing" else 1.5), {}


def forest(names, kind):
    found = list(estimates(names, kind).values())
    verdicts = ("better", "worse", "equivalent", "undecided")
    pairs = [Difference(names[0], name, found[place + 1], verdicts[place % 4]) for place, name in enumerate(names[1:])]
    return (draw_forest, describe_forest), (pairs,), {"label": "HD95", "unit": "mm", "margin": 0.5}


def scores(names, kind):
    faults = {"failed one": "out of memory after 3 of 20 epochs on a device with 8 GB"}
    return (draw_scores, describe_scores), (estimates(names, kind),), {"label": "Dice", "faults": faults}


def classes(names, kind):
    values = {"missing": [NAN, NAN], "equal": [0.5, 0.5], "usual": [0.1, 0.9, 0.7, NAN]}[kind]
    return (
        (draw_classes, describe_classes),
        ({name: dict.fromkeys(CLASSES, values) for name in names},),
        {"label": "IoU"},
    )


def pareto(names, kind):
    arguments = {"label": "Dice", "cost_label": "seconds for a patch"}
    return (draw_pareto, describe_pareto), (estimates(names, kind), costs(names, kind)), arguments


def bubbles(names, kind):
    means = {name: one.mean for name, one in estimates(names, kind).items()}
    return (draw_bubbles, describe_bubbles), (means, costs(names, kind), costs(names, kind)), {"label": "Dice"}


def trade_off(names, kind):
    means = {name: one.mean for name, one in estimates(names, kind).items()}
    found = relative(means, (costs(names, kind), costs(names, kind)))
    return (draw_trade_off, describe_trade_off), (found,), {"label": "Dice"}


def volume_scores(names, kind):
    means = {name: dict.fromkeys(CLASSES, one.mean) for name, one in estimates(names, kind).items()}
    volumes = dict(zip(CLASSES, (1500.0, 30.0, 30.0, NAN if kind == "missing" else 4.0), strict=True))
    return (draw_volume_scores, describe_volume_scores), (volumes, means), {"label": "Dice"}


def volume_differences(names, kind):
    differences = dict(zip(CLASSES, list(estimates("abcd", kind).values()), strict=True))
    arguments = {"ours": names[0], "theirs": names[-1], "label": "Dice"}
    functions = draw_volume_differences, describe_volume_differences
    return functions, (dict.fromkeys(CLASSES, 12.0), differences), arguments


def stability(names, kind):
    share = NAN if kind == "missing" else 1 / len(names)
    table = {name: [share] * len(names) for name in names}
    if kind == "usual":
        table = dict(zip(names, np.eye(len(names)).tolist(), strict=True))
    return (draw_stability, describe_stability), (table,), {}


def state(step, active, moved):
    nodes = {"x[1,0]": {"forward": [active, 20], "up": [10 - active, 20]}, "x[1,1]": {"down": [2, 20], "up": [3, 20]}}
    return {"step": step, "moved": moved, "rate": 0.25, "layers": {}, "nodes": nodes}


def fusion(names, kind):
    history = (state(0, 0 if kind == "missing" else 5, 0), state(100, 8, 3))
    return (draw_fusion, describe_fusion), (dict.fromkeys(names, history),), {}


def learning(names, kind):
    values = {"missing": [NAN, NAN], "equal": [1.0, 1.0], "usual": [1.0, 0.5]}[kind]
    curves = {name: [([0.0, 2.0], values), ([], [])] for name in names}
    return (draw_learning, describe_learning), (curves,), {"label": "loss", "along": "minutes"}


FIGURES = (
    ranks, forest, scores, classes, pareto, bubbles, trade_off, volume_scores, volume_differences, stability, fusion,
    learning,
)  # fmt: skip


def drawn(figure, names, kind):
    (draw, describe), values, keywords = figure(names, kind)
    return draw(*values, **keywords), describe(*values, **keywords)


def cut_off(figure):
    """Texts that are not all inside the figure."""
    with styled():
        figure.draw_without_rendering()  # places everything
        found = []
        for axes in figure.axes:
            axis_texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
            low, high = sorted(axes.get_xlim())
            ticks = {id(text) for text in axes.get_xticklabels() if not low <= text.get_position()[0] <= high}
            bottom, top = sorted(axes.get_ylim())
            ticks |= {id(text) for text in axes.get_yticklabels() if not bottom <= text.get_position()[1] <= top}
            for text in (*axes.texts, *figure.texts, *axis_texts):
                if id(text) in ticks or not text.get_visible() or not text.get_text() or not axes.axison:
                    continue
                box = text.get_window_extent()
                if box.x0 < -1 or box.y0 < -1 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1:
                    found.append(text.get_text())
    return found


QUICK = {("twelve", "usual"), ("two", "missing"), ("five", "equal")}
SITUATIONS = [
    pytest.param(names, kind, id=f"{many}-{kind}", marks=[] if (many, kind) in QUICK else [pytest.mark.slow])
    for many, names in CASES.items()
    for kind in ("usual", "equal", "missing")
]


@pytest.mark.parametrize(("names", "kind"), SITUATIONS)
@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_nothing_is_cut_off_and_the_text_names_everyone(figure, names, kind):
    picture, text = drawn(figure, names, kind)
    assert not cut_off(picture)
    assert text.endswith(".")
    assert "nan" not in text
    svg = to_svg(picture, prefix="figure", title=text)
    assert re.match(r'<svg role="img" aria-label="[^"]*"', svg)
    assert "nan" not in re.sub('aria-label="[^"]*"', "", svg)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_names_are_in_the_text_and_in_the_drawing(figure):
    names = TWELVE[:5]
    picture, text = drawn(figure, names, "usual")
    told = names[:1] + names[-1:] if figure is volume_differences else names
    assert all(name in text for name in told)
    shown = {text.get_text() for axes in picture.axes for text in axes.texts} | {
        text.get_text() for axes in picture.axes for text in axes.get_yticklabels()
    }
    assert all(any(name in one for one in shown) for name in short(told).values())


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_figures_are_readable_on_a_narrow_page(figure):
    picture, _ = drawn(figure, TWELVE[:5], "usual")
    pixels_of_a_point = 400 / (72 * picture.get_figwidth())  # a page of 400 pixels
    sizes = [text.get_fontsize() for axes in picture.axes for text in axes.texts] + [
        text.get_fontsize() for axes in picture.axes for text in axes.get_xticklabels()
    ]
    assert min(sizes) * pixels_of_a_point > 7.5


@pytest.mark.parametrize("figure", [pareto, bubbles, volume_scores], ids=lambda figure: figure.__name__)
def test_the_same_numbers_give_the_same_drawing(figure):
    files = []
    for _ in range(2):
        picture, _ = drawn(figure, TWELVE, "usual")
        file = io.BytesIO()
        with styled():
            picture.savefig(file, format="png", dpi=60)
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_updates_of_connections_are_drawn_and_told():
    history = [state(step, 5, 4 if step else 0) for step in range(0, 1000, 10)]
    curves = {"training": ([0.0, 990.0], [1.0, 0.2]), "validation": ([], [])}
    picture = draw_updates(curves, history, label="loss")
    upper = picture.axes[1]
    assert len(upper.lines) == 1 + 50  # 99 updates, of which every second one is marked, and one curve with values
    assert not cut_off(picture)
    assert describe_updates(history, label="Loss") == (
        "Loss over the training steps, and 99 updates of the connections from step 10 to 990, "
        "which moved 25.0% of them at first and 25.0% at last."
    )
    assert describe_updates(history[:1], label="Loss") == "Loss over the training steps. No connection moved."

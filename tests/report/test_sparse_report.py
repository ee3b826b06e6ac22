"""The section on sparse connections: what a log says of fusion nodes, counted and drawn."""

import json
import re
from dataclasses import asdict

import pytest

from voxelseg.compare.fusion import proportions
from voxelseg.nets import create_model
from voxelseg.report.figures.fusion import draw_course, draw_ends
from voxelseg.report.page import render
from voxelseg.report.run import Fold, read_run
from voxelseg.report.sparse import sparse_folds
from voxelseg.train.sparse.settings import SparseConfig
from voxelseg.train.sparse.topology import Topology


def state(step, *, moved=0, rate=0.0, up=10, forward=20, down=10):
    """One logged state: 40 of 200 kernels are active in a node with three sources, 5 of 20 in one with two."""
    return {
        "event": "topology",
        "step": step,
        "update": 0,
        "rate": rate,
        "moved": moved,
        "layers": {"fusion.0.0.0.conv": [5, 20], "fusion.0.1.0.conv": [40, 200], "up.0.0": [15, 60]},
        "nodes": {
            "x[1,0]": {"forward": [2, 10], "up": [3, 10]},
            "x[1,1]": {"forward": [forward, 100], "up": [up, 50], "down": [down, 50]},
        },
    }


HISTORY = (
    state(0),
    state(100, moved=30, rate=0.5, up=15, forward=20, down=5),
    state(200, moved=6, rate=0.1, up=15, forward=25, down=0),
)


def fold(history=HISTORY, name="0"):
    return Fold(name, (), None, {}, history)


def test_proportions_are_shares_of_the_nodes_active_kernels():
    assert proportions(HISTORY[2]["nodes"]["x[1,1]"]) == {"forward": 0.625, "up": 0.375, "down": 0.0}  # of 40


def test_updates_moved_kernels_and_sparsity_are_told():
    (found,) = sparse_folds([fold(), Fold("1", (), None, {})])
    facts = dict(found.facts)
    assert facts["Active kernels"] == "60 kernels of 280 in 3 layers"
    assert facts["Sparsity"] == "78.6 %"  # 1 - 60 / 280
    assert facts["Updates"] == "2, from step 100 to 200"
    assert facts["Moved kernels"] == "36 kernels: each active one 0.6 times on average"
    assert facts["Share moved in an update"] == "50.0 % to 10.0 %"


def test_a_single_update_is_told_with_its_own_step_though_a_later_stage_began_after_it():
    (found,) = sparse_folds([fold((*HISTORY[:2], state(150)))])  # kernels grew, and a state is logged without a move
    assert dict(found.facts)["Updates"] == "1, in step 100"


def test_a_fixed_topology_is_told():
    (found,) = sparse_folds([fold(HISTORY[:1])])
    assert dict(found.facts)["Updates"] == "none: the active kernels are those of the beginning"


def test_the_table_has_the_active_share_of_each_direction_before_and_after():
    (found,) = sparse_folds([fold()])
    assert found.titles == (
        "Node",
        "Active kernels",
        "Active share up",
        "Active share forward",
        "Active share down",
    )
    assert found.rows == (
        ("x[1,0]", "5", "30.0 % → 30.0 %", "20.0 % → 20.0 %", "–"),
        ("x[1,1]", "40", "20.0 % → 30.0 %", "20.0 % → 25.0 %", "20.0 % → 0.0 %"),
    )


def test_without_fusion_nodes_the_layers_are_listed():
    (found,) = sparse_folds([fold(tuple({**one, "nodes": {}} for one in HISTORY))])
    assert found.drawings == ()
    assert found.rows[0] == ("fusion.0.0.0.conv", "5", "20", "25.0 %")


def test_bars_show_the_beginning_and_the_end_of_each_node():
    (axes,) = draw_ends(HISTORY).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x[1,0]", "x[1,1]"]
    heights = [[round(float(bar.get_height()), 9) for bar in bars] for bars in axes.containers]
    # up, forward, down at the beginning, then at the end: each of both nodes
    assert heights == [[0.6, 0.25], [0.4, 0.5], [0.0, 0.25], [0.6, 0.375], [0.4, 0.625], [0.0, 0.0]]
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["up", "forward", "down"]


def test_each_node_has_a_drawing_at_its_stage_and_level():
    figure = draw_course(HISTORY)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["x[1,0]", "x[1,1]"]
    lines = {line.get_label(): list(line.get_ydata()) for line in shown[1].lines}
    assert lines == {"up": [0.25, 0.375, 0.375], "forward": [0.5, 0.5, 0.625], "down": [0.25, 0.125, 0.0]}
    assert list(shown[1].lines[0].get_xdata()) == [0, 100, 200]
    assert {line.get_label() for line in shown[0].lines} == {"up", "forward"}
    assert len({line.get_linestyle() for line in shown[1].lines}) == 3  # not told apart by colour alone


def test_a_long_training_is_thinned_to_what_can_be_seen():
    history = tuple(state(step) for step in range(0, 20_900, 100))
    (line, *_) = draw_course(history).axes[0].lines
    steps = list(line.get_xdata())
    assert len(steps) == 60
    assert (steps[0], steps[-1]) == (0, 20_800)


@pytest.mark.parametrize("lines", [[], HISTORY])
def test_the_report_has_the_section_if_the_log_has_it(run_folder, lines):
    with (run_folder / "fold_0" / "log.jsonl").open("a") as log:
        log.writelines(json.dumps(line) + "\n" for line in lines)
    html = render(read_run(run_folder))
    assert ("<h2>Sparse connections</h2>" in html) == bool(lines)
    assert html.count("<svg role=") == (3 + 3 if lines else 3)  # the nodes at both ends and over time, the loss
    targets = {a or b for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html)}
    assert targets <= set(re.findall(r'\bid="([^"]+)"', html))


def test_states_are_read_in_order_and_once_after_a_restart(run_folder):
    lines = [HISTORY[0], HISTORY[1], {**HISTORY[2], "moved": 7}, HISTORY[2], {"event": "topology", "step": 300}]
    with (run_folder / "fold_0" / "log.jsonl").open("a") as log:
        log.writelines(json.dumps(line) + "\n" for line in lines)
    (found,) = read_run(run_folder).folds
    assert [(one["step"], one["moved"]) for one in found.topology] == [(0, 0), (100, 30), (200, 6)]


def test_what_training_logs_can_be_drawn():
    model = create_model("e2enet", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2, 2))
    logged = json.loads(json.dumps(asdict(Topology(model, SparseConfig(), seed=0).census())))
    (found,) = sparse_folds([fold((logged,))])
    assert [row[0] for row in found.rows] == ["x[1,0]", "x[1,1]", "x[1,2]", "x[2,0]", "x[2,1]", "x[3,0]"]
    assert len(found.drawings) == 2

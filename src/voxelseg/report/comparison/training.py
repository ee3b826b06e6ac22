"""How the trainings went: learning curves, and where sparse fusion took its features from."""

import math
from collections.abc import Mapping, Sequence

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.sources import Event
from voxelseg.report.comparison.document import Drawing, Section
from voxelseg.report.comparison.material import Material
from voxelseg.report.figures.fusion import describe_fusion, draw_fusion
from voxelseg.report.figures.learning import (
    Curve,
    describe_learning,
    describe_updates,
    draw_learning,
    draw_updates,
)
from voxelseg.report.run import number, topology_states

_MINUTE_S = 60.0
_CURVES = (("mean_dice", "Running Dice"), ("loss", "Training loss"))
"""What the curves show: the first that some training logged."""


def training_section(material: Material) -> Section | None:
    """Curves of what the trainings logged; None if nothing is known of them."""
    drawings = [*_learning(material), *_moves(material), *_fusion(material)]
    if not drawings:
        return None
    return Section(title="How the trainings went", drawings=tuple(drawings))


def _learning(material: Material) -> list[Drawing]:
    for key, label in _CURVES:
        curves = {one.name: found for one in material.contestants if (found := _curves(one, key))}
        if curves:
            text = describe_learning(curves, label=label, along="minutes")
            drawn = draw_learning(curves, label=label, along="minutes", look=material.looks)
            return [Drawing(name="learning", title=f"{label} during training", text=text, figure=drawn)]
    return []


def _curves(contestant: Contestant, key: str) -> Sequence[Curve]:
    found = [_curve(log, key) for log in contestant.logs.values()]
    return [curve for curve in found if curve[0]]


def _curve(log: Sequence[Event], key: str, *, along: str = "elapsed_s", unit: float = _MINUTE_S) -> Curve:
    """Minutes, or what else `along` says, and values of the epochs that have a value."""
    epochs = [one for one in log if one.get("event") == "epoch"]
    points = [(number(one.get(along)) / unit, number(one.get(key))) for one in epochs]
    kept = [(time, value) for time, value in points if math.isfinite(time) and math.isfinite(value)]
    return [time for time, _ in kept], [value for _, value in kept]


def _moves(material: Material) -> list[Drawing]:
    """Loss and moving connections of the first training of each contestant whose connections moved."""
    drawings = []
    for place, one in enumerate(material.contestants):
        for log in list(one.logs.values())[:1]:
            states = topology_states(log)
            curve = _curve(log, "loss", along="step", unit=1)
            if curve[0] and any(state["moved"] for state in states):
                drawings.append(
                    Drawing(
                        name=f"moves_{place}",
                        title=f"{one.name}: loss and moving connections",
                        hint="first training; as E2ENet's Fig. 7",
                        text=f"{one.name}. {describe_updates(states, label='Training loss')}",
                        figure=draw_updates({"training loss": curve}, states, label="loss"),
                    )
                )
    return drawings


def _fusion(material: Material) -> list[Drawing]:
    """Of the first training of each contestant with sparse fusion nodes."""
    histories: dict[str, Sequence[Mapping[str, object]]] = {}
    for one in material.contestants:
        states = [topology_states(log) for log in one.logs.values()]
        with_nodes = [found for found in states if found and found[-1]["nodes"]]
        if with_nodes:
            histories[one.name] = with_nodes[0]
    if not histories:
        return []
    text, drawn = describe_fusion(histories), draw_fusion(histories)
    hint = "first training of each; as E2ENet's Fig. 12"
    return [
        Drawing(name="fusion", title="Where sparse fusion takes its features from", hint=hint, text=text, figure=drawn)
    ]

import numpy as np
import pytest
from matplotlib.figure import Figure

from voxelseg.report.figures.labels import Point, apart, place_labels
from voxelseg.report.figures.look import axes_in


def labelled(points, **more):
    figure = Figure(figsize=(5.6, 4.0))
    axes = axes_in(figure, left=0.7, bottom=0.6, right=0.2, top=0.2)
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 1)
    place_labels(axes, points, **more)
    return figure, axes


def boxes(axes):
    return [text.get_window_extent() for text in axes.texts]


def overlaps(ours, theirs):
    return (
        min(ours.x1, theirs.x1) > max(ours.x0, theirs.x0) + 1 and min(ours.y1, theirs.y1) > max(ours.y0, theirs.y0) + 1
    )


def covered(axes, points, radius=3):
    places = axes.transData.transform([(point.x, point.y) for point in points])
    return [
        text.get_text() for text in axes.texts for x, y in places if text.get_window_extent().padded(-1).contains(x, y)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_labels_of_twelve_points_cover_neither_each_other_nor_a_point(seed):
    generator = np.random.default_rng(seed)
    places = generator.uniform((1, 0.2), (9, 0.9), size=(12, 2))
    points = [Point(float(x), float(y), f"contestant {place}") for place, (x, y) in enumerate(places)]
    figure, axes = labelled(points)
    found = boxes(axes)
    assert not [1 for place, one in enumerate(found) for other in found[place + 1 :] if overlaps(one, other)]
    assert not covered(axes, points)
    assert all(one.x1 <= figure.bbox.x1 and one.x0 >= axes.bbox.x0 - 1 for one in found)


def test_labels_of_equal_points_stand_beside_each_other():
    _, axes = labelled([Point(5, 0.5, name) for name in ("unet", "mednext_s", "uxnet", "e2enet", "logonet")])
    found = boxes(axes)
    assert not [1 for place, one in enumerate(found) for other in found[place + 1 :] if overlaps(one, other)]


def test_a_label_keeps_off_lines_and_other_markers():
    line = [(5.0, 0.5), (10.0, 0.5)]  # where the label would stand
    _, axes = labelled([Point(5, 0.5, "unet")], lines=[line], others=[Point(4.5, 0.5, "")])
    (box,) = boxes(axes)
    height = axes.transData.transform((5, 0.5))[1]
    assert not box.y0 < height < box.y1


def test_a_label_at_the_right_edge_stands_on_the_left():
    _, axes = labelled([Point(9.9, 0.5, "a long name")])
    assert boxes(axes)[0].x1 < axes.transData.transform((9.9, 0.5))[0]


def test_places_are_moved_apart_around_their_middle():
    assert apart({"a": 1.0, "b": 1.0}, 0.5, 0, 2) == pytest.approx({"a": 0.75, "b": 1.25})
    assert apart({"a": 0.2, "b": 1.5}, 0.5, 0, 2) == pytest.approx({"a": 0.2, "b": 1.5})


def test_places_stay_within_the_ends_if_there_is_room():
    assert apart({"a": 2.0, "b": 2.0, "c": 1.9}, 0.5, 0, 2) == pytest.approx({"c": 1.0, "a": 1.5, "b": 2.0})
    assert apart({"a": 2.0, "b": 2.0}, 3.0, 0, 2) == pytest.approx({"a": 0.0, "b": 3.0})

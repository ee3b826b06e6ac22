import tracemalloc

import numpy as np
import pytest

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.case import class_boxes
from voxelseg.evaluate.probabilities import probability_files, reliabilities
from voxelseg.geometry import Grid
from voxelseg.io import nifti, write_volume
from voxelseg.metrics import reliability
from voxelseg.volume import Volume

NUM_CLASSES = 9
LABELS = LabelScheme(tuple(LabelClass(f"organ {value}", (value,), value) for value in range(1, NUM_CLASSES + 1)))
GRID = Grid(shape_ijk=(50, 60, 40), affine_ijk=np.diag([0.5, 1.0, 3.0, 1.0]))


@pytest.fixture
def scan(tmp_path):
    """Label map, and the file of probabilities that are sure of it, halved outside its own class."""
    label_map = np.random.default_rng(0).integers(0, NUM_CLASSES + 1, GRID.shape_dhw, np.uint8)
    sure = (label_map[None] == np.arange(NUM_CLASSES + 1)[:, None, None, None]).astype(np.float32) / 2
    write_volume(tmp_path / "a.nii.gz", Volume(sure, GRID))
    return Volume(label_map[None], GRID), tmp_path / "a.nii.gz"


def boxes(reference):
    return class_boxes(LABELS, reference.array[0])


def test_each_class_is_summed_over_its_own_channel(scan):
    reference, path = scan
    found = reliabilities(path, reference, LABELS, boxes(reference))
    assert list(found) == list(LABELS.names)
    for value, one in enumerate(found.values(), start=1):
        of_class = int((reference.array == value).sum())
        assert one.counts.sum() == reference.array.size  # everything lies within 10 mm of the class
        assert one.positives.tolist() == [0] * 7 + [of_class] + [0] * 7  # 0.5 lies in the eighth of 15 bins
        assert one.squared_errors == pytest.approx(of_class / 4)


def test_two_channels_are_in_memory_at_a_time(scan, monkeypatch):
    monkeypatch.setattr(reliability, "_AT_ONCE", 4096)  # in proportion to this scan, as the next line
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 2**14)
    reference, path = scan
    channel = reference.array.size * 4
    tracemalloc.start()
    try:
        reliabilities(path, reference, LABELS, boxes(reference))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * channel  # two, what was just read of the file, and a mask; all ten would be 10 * channel


def test_rounding_beyond_one_is_cut_off(tmp_path):
    reference = Volume(np.ones((1, *GRID.shape_dhw), np.uint8), GRID)
    labels = LabelScheme((LabelClass("all", (1,), 1),))
    sure = np.stack([np.full(GRID.shape_dhw, -1e-6), np.full(GRID.shape_dhw, 1 + 1e-6)]).astype(np.float32)
    write_volume(tmp_path / "a.nii.gz", Volume(sure, GRID))
    found = reliabilities(tmp_path / "a.nii.gz", reference, labels, class_boxes(labels, reference.array[0]))
    assert found["all"].squared_errors == 0.0


def test_the_file_of_a_case_may_be_compressed_or_not(tmp_path):
    for name in ("a.nii.gz", "b.nii", "c.mha"):
        (tmp_path / name).touch()
    assert probability_files(tmp_path, ["a", "b"]) == {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.nii"}
    assert probability_files(tmp_path / "b.nii", ["x"]) == {"x": tmp_path / "b.nii"}
    with pytest.raises(DataError, match=r"1 of 2 cases have no probabilities: c\."):
        probability_files(tmp_path, ["a", "c"])
    with pytest.raises(DataError, match="2 of 2 cases have no probabilities"):
        probability_files(tmp_path / "nowhere", ["a", "c"])

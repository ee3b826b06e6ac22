import shutil

import numpy as np
import pytest
import torch
from torch import nn

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import DataError
from voxelseg.io import read_volume, write_volume
from voxelseg.plan.fingerprint import compute_fingerprint
from voxelseg.plan.planner import make_plan
from voxelseg.preprocess.store import store_dataset
from voxelseg.pretrain.probe import (
    FRESH,
    PRETRAINED,
    VOXELS_PER_CROP,
    class_names,
    draw_voxels,
    probe,
    settle_batch_norms,
)
from voxelseg.volume import Volume

CPU = torch.device("cpu")
CROP = (8, 16, 12)


class Intensities(nn.Module):
    """Features that tell the tiny scans' classes: their intensities."""

    def features(self, x):
        return x

    def encode(self, x):
        return [nn.functional.avg_pool3d(x, 4)]


class Nothing(nn.Module):
    """Features that tell nothing."""

    def features(self, x):
        return torch.zeros_like(x)

    encode = features


@pytest.fixture(scope="module")
def labelled(tiny_msd, tmp_path_factory):
    """The tiny data set and its stored cases."""
    dataset = read_dataset(tiny_msd)
    return dataset, stored(dataset, tmp_path_factory.mktemp("store"))


def stored(dataset, folder):
    return list(store_dataset(dataset, make_plan(compute_fingerprint(dataset)), folder).values())


def drawn(case, *, crop=CROP, part="all", seed=0):
    generator = np.random.default_rng(seed)
    return draw_voxels(case, {PRETRAINED: Intensities()}, part=part, crop_size=crop, generator=generator, device=CPU)


def probed(labelled, networks, **changes):
    dataset, cases = labelled
    patients = {case.id: case.id for case in cases}
    return probe(
        **{
            "fit": cases[:2],
            "score": cases[2:],
            "networks": networks,
            "part": "all",
            "crop_size": CROP,
            "labels": dataset.labels,
            "patients": patients,
            "seed": 0,
            "device": CPU,
            **changes,
        }
    )


def test_features_that_tell_classes_are_told_from_those_that_do_not(labelled):
    found = probed(labelled, {PRETRAINED: Intensities(), FRESH: Nothing()})
    assert (found.cases_fitted, found.cases_scored) == (2, 2)
    assert found.chance == pytest.approx(1 / 3)  # background, ball and rod
    for one in found.probes.values():
        assert one.accuracy[PRETRAINED] > 0.9
        assert one.accuracy[FRESH] == pytest.approx(1 / 3)  # the same class for all
        assert one.difference.low > 0.5
        assert list(one.recall[PRETRAINED]) == ["background", "ball", "rod"]
    assert found.to_dict()["probes"]["linear"]["accuracy"][FRESH] == pytest.approx(1 / 3)


def test_voxels_are_drawn_evenly_over_the_classes_of_a_crop_and_always_the_same(labelled):
    _, cases = labelled
    first, again = drawn(cases[0]), drawn(cases[0])
    assert np.array_equal(first.classes, again.classes)
    assert np.array_equal(first.features[PRETRAINED], again.features[PRETRAINED])
    assert not np.array_equal(first.features[PRETRAINED], drawn(cases[0], seed=1).features[PRETRAINED])
    counts = np.unique(first.classes, return_counts=True)[1]
    assert len(counts) == 3
    assert max(counts) == 4 * VOXELS_PER_CROP  # the background, of which every crop has enough
    assert first.features[PRETRAINED].shape == (len(first.classes), 1)


def test_deep_features_are_those_of_the_coarse_voxel_that_a_voxel_lies_in(labelled):
    _, cases = labelled
    whole = cases[0].shape
    crop = tuple(-(-size // 4) * 4 for size in whole)  # the whole scan, padded
    fine, deep = (drawn(cases[0], crop=crop, part=part).features[PRETRAINED] for part in ("all", "encoder"))
    assert fine.shape == deep.shape
    assert len(np.unique(deep)) < len(np.unique(fine))


def test_what_lies_outside_the_scan_is_not_drawn(labelled):
    _, cases = labelled
    crop = tuple(3 * size for size in cases[0].shape)  # 26 of 27 voxels are padding, which is 0
    voxels = drawn(cases[0], crop=crop)
    assert np.count_nonzero(voxels.features[PRETRAINED] == 0) < 0.1 * len(voxels.classes)


def test_voxels_of_one_class_cannot_be_probed(labelled, tiny_msd, tmp_path):
    data = shutil.copytree(tiny_msd, tmp_path / "Task01_Tiny")
    path = data / "labelsTr" / "tiny_0.nii.gz"
    label = read_volume(path)
    write_volume(path, Volume(np.zeros_like(label.array), label.grid))
    empty, other, *_ = stored(read_dataset(data), tmp_path / "store")
    with pytest.raises(DataError, match="all labelled voxels are of one class"):
        probed(labelled, {PRETRAINED: Intensities(), FRESH: Nothing()}, fit=[empty], score=[other])


def test_fresh_batch_norms_take_the_statistics_of_the_crops():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm3d(1)

        def features(self, x):
            return self.norm(x)

    network = Normed()
    images = [torch.full((1, 1, 2, 3, 4), value) for value in (2.0, 6.0)]
    settle_batch_norms(network, images)
    assert network.norm.running_mean.item() == 4.0  # the mean of both
    assert not network.training
    assert torch.equal(network.features(torch.full((1, 1, 1, 1, 1), 4.0)), torch.zeros(1, 1, 1, 1, 1))


def test_with_regions_classes_are_label_values():
    regions = LabelScheme((LabelClass("whole", (1, 2), 1), LabelClass("core", (2,), 2)), ignore=9)
    assert class_names(regions) == ["background", "value 1", "value 2"]

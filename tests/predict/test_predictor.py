from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from voxelseg.checkpoint import Checkpoint, load_checkpoint
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import CheckpointError, ConfigError, DataError, VoxelsegError
from voxelseg.geometry import Grid
from voxelseg.nets import Network
from voxelseg.plan.plan import Normalization, Plan
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.predict.predictor import Predictor, prediction_settings
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("dark", (1,), 1), LabelClass("bright", (2,), 7)))
REGIONS = LabelScheme((LabelClass("all", (1, 2), 1), LabelClass("bright", (2,), 2)))
PLAN = Plan(
    channels=("MR",),
    spacing_mm=(2.0, 1.0, 1.0),
    anisotropic=False,
    normalization=(Normalization(kind="none"),),
    patch_size=(4, 6, 8),
    batch_size=2,
    mirror_axes=(1,),
    median_shape=(6, 8, 10),
    strides=((1, 1, 1),),
    kernels=((3, 3, 3),),
)


class Thresholds(Network):
    """Logits that follow from the voxel's intensity: background below 10, dark up to 20, bright above."""

    def __init__(self, scale: float = 4.0) -> None:
        super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        x = x[:, 0]
        return self.scale * torch.stack([10 - x, 5 - (x - 15).abs(), x - 20], dim=1)


class Made(Checkpoint):
    """A checkpoint of a network that no file describes."""

    def build(self):
        return self.provenance["network"].eval()


def made(network=None, *, plan=PLAN, labels=LABELS):
    return Made(
        weights={},
        model="",
        model_options={},
        plan=plan,
        labels=labels,
        file_ending=".nii.gz",
        provenance={"network": network or Thresholds()},
    )


def scan(shape=(5, 9, 7), spacing=(2.0, 1.0, 1.0), seed=0):
    """Intensities 0, 15 and 30 in blocks, on a grid whose file axes are flipped and in another order."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 15.0, 30.0], shape).astype(np.float32)
    d, h, w = shape
    affine = np.array([[0, -spacing[2], 0, 9], [spacing[1], 0, 0, -4], [0, 0, -spacing[0], 2], [0, 0, 0, 1.0]])
    return Volume(values[None], Grid(shape_ijk=(h, w, d), affine_ijk=affine))


def test_intensities_become_labels_with_the_values_that_the_scheme_paints():
    volume = scan()
    label = Predictor([made()]).label_map(volume)
    expected = np.select([volume.array == 0, volume.array == 15], [0, 1], 7)
    assert label.array.dtype == np.uint8
    np.testing.assert_array_equal(label.array, expected)
    assert label.grid is volume.grid


def test_probabilities_sum_to_one_everywhere_also_outside_the_crop_and_on_another_grid():
    volume = scan(spacing=(3.0, 1.3, 0.8))
    volume.array[:, :2] = 0  # cropped away
    values = Predictor([made()]).probabilities(volume)
    assert values.shape == (3, 5, 9, 7)
    np.testing.assert_allclose(values.sum(axis=0), 1.0, atol=1e-5)
    assert (values[0, :2] == 1.0).all()


def test_regions_are_independent_and_later_ones_are_painted_over_earlier_ones():
    class Overlapping(Network):
        def __init__(self):
            super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.cat([x - 10, x - 20], dim=1)

    volume = scan()
    predictor = Predictor([made(Overlapping(), labels=REGIONS)])
    values = predictor.probabilities(volume)
    bright = volume.array[0] == 30
    assert (values[:, bright] > 0.99).all()  # both at once
    np.testing.assert_array_equal(
        predictor.label_map(volume).array, np.select([volume.array == 0, volume.array == 15], [0, 1], 2)
    )


def test_an_ensemble_is_the_mean_of_its_members_probabilities():
    volume, soft, hard = scan(), made(Thresholds(0.05)), made(Thresholds(0.3))
    first, second = (Predictor([one]).probabilities(volume) for one in (soft, hard))
    both = Predictor([soft, hard]).probabilities(volume)
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)
    assert abs(first - second).max() > 0.05


def test_logits_may_be_averaged_instead_of_probabilities():
    volume, soft, hard = scan(), made(Thresholds(0.05)), made(Thresholds(0.3))
    both = Predictor([soft, hard], average="logits").probabilities(volume)
    # the network is linear in its scale, so that the mean of the logits is that of scale 0.175
    mean = Predictor([made(Thresholds(0.175))]).probabilities(volume)
    np.testing.assert_allclose(both, mean, atol=1e-6)
    assert abs(both - Predictor([soft, hard]).probabilities(volume)).max() > 0.01
    np.testing.assert_allclose(both.sum(axis=0), 1.0, atol=1e-6)


def test_windows_are_placed_and_weighted_as_told():
    class Placed(Thresholds):
        """Logits that depend on the place in the window."""

        def forward(self, x):
            return super().forward(x) * torch.linspace(0.1, 1, x.shape[-1])

    volume = scan(shape=(5, 9, 14))  # along W windows start at 0, 3, 6 or 0, 4, 6
    options = [{}, {"weighting": "constant"}, {"placement": "stepped"}, {"average": "logits"}]
    results = [Predictor([made(Placed(0.2))], **one).probabilities(volume) for one in options]
    for index, one in enumerate(results[1:], start=1):
        assert abs(one - results[0]).max() > 1e-3, options[index]


def test_mirroring_happens_only_when_asked_for_and_only_along_the_plan_s_axes():
    class Watching(Thresholds):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, x):
            self.seen.append(x.clone())
            return super().forward(x)

    volume = scan(shape=(4, 6, 8))
    for tta, mirror_axes, expected in ((False, (1,), 1), (True, (1,), 2), (True, (), 1), (True, (0, 1), 4)):
        network = Watching()
        Predictor([made(network, plan=PLAN.changed(mirror_axes=mirror_axes))], tta=tta).probabilities(volume)
        assert len(network.seen) == expected
        flips = {axis for axis in range(3) if any(x.equal(network.seen[0].flip(2 + axis)) for x in network.seen[1:])}
        assert flips == (set(mirror_axes) if tta else set())


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (4, 6, 8), (9, 13, 17)])
def test_volumes_of_any_size_are_predicted_patch_or_not(shape):
    volume = scan(shape=shape)
    np.testing.assert_array_equal(
        Predictor([made()]).label_map(volume).array, np.select([volume.array == 0, volume.array == 15], [0, 1], 7)
    )


def test_the_same_scan_in_another_orientation_gives_the_same_labels_there():
    volume = scan()
    affine = volume.grid.affine_dhw[:, [2, 1, 0, 3]]  # file axes W, H, D, without flips
    d, h, w = volume.shape_dhw
    turned = Volume(volume.array, Grid(shape_ijk=(w, h, d), affine_ijk=affine))
    predictor = Predictor([made()])
    np.testing.assert_array_equal(predictor.label_map(volume).array, predictor.label_map(turned).array)


def test_models_that_do_not_belong_together_are_refused():
    others = (
        made(labels=REGIONS),
        made(plan=PLAN.changed(spacing_mm=(1.0, 1.0, 1.0))),
        made(plan=PLAN.changed(patch_size=(8, 8, 8))),
    )
    for other in others:
        with pytest.raises(CheckpointError, match="differ in labels, patch, preprocessing or mirror axes"):
            Predictor([made(), other])
    Predictor([made(), made(plan=PLAN.changed(batch_size=5))])  # makes no difference to a prediction


def test_a_scan_with_other_channels_is_refused():
    volume = scan()
    double = Volume(np.concatenate([volume.array] * 2), volume.grid)
    with pytest.raises(DataError, match=r"2 channel\(s\), the plan expects 1: MR"):
        Predictor([made()]).probabilities(double)


def test_an_output_that_is_no_number_is_never_turned_into_labels():
    with pytest.raises(VoxelsegError, match="output is not a number"):
        Predictor([made(Thresholds(float("nan")))]).probabilities(scan())


def test_progress_runs_to_one():
    shares = []
    Predictor([made()]).probabilities(scan(), progress=shares.append)
    assert shares[-1] == 1.0


def test_a_model_file_predicts_without_the_run_that_made_it(tiny_run, tiny_msd):
    from voxelseg.io import read_volume

    checkpoint = load_checkpoint(tiny_run.model)
    volume = read_volume(tiny_msd / "imagesTs" / "tiny_4.nii.gz")
    label = Predictor([checkpoint]).label_map(volume)
    assert label.array.shape == volume.array.shape
    assert set(np.unique(label.array)) <= {0, 1, 2}
    assert replace(checkpoint, path=None).fingerprint() == checkpoint.fingerprint()


@pytest.mark.parametrize("overlap", [-0.1, 0.95, 1.0, float("nan")])
def test_impossible_overlaps_are_refused(overlap):
    with pytest.raises(ConfigError, match=r"from 0 to 0\.9"):
        Predictor([made()], overlap=overlap)


def test_models_that_mirror_along_other_axes_are_not_mirrored_together():
    others = [made(), made(plan=PLAN.changed(mirror_axes=(0,)))]
    assert len(Predictor(others).networks) == 2
    with pytest.raises(CheckpointError, match="mirror axes"):
        Predictor(others, tta=True)


def test_too_little_memory_on_a_cpu_is_told_from_faults():
    class Hungry(Thresholds):
        def forward(self, x):
            return super().forward(x).expand(1 << 30, -1, -1, -1, -1).clone()

    scan = Volume(np.ones((1, 6, 8, 10), np.float32), Grid(shape_ijk=(10, 8, 6), affine_ijk=np.diag([1, 1, 2, 1.0])))
    with pytest.raises(MemoryError, match="allocate"):
        Predictor([made(Hungry())]).probabilities(scan)


KEEP_BRIGHT = Postprocessing(classes=("bright",)).to_dict()


def lone_voxels():
    """A scan with a bright box, a bright voxel far from it, and two dark voxels far from each other."""
    volume = scan()
    values = np.zeros_like(volume.array)
    values[0, 0:2, 0:3, 0:4] = 30.0
    values[0, 4, 8, 6] = 30.0
    values[0, 4, 0, 0] = values[0, 0, 8, 6] = 15.0
    return Volume(values, volume.grid)


def test_label_maps_are_postprocessed_as_the_models_say_and_probabilities_are_not():
    volume, chosen = lone_voxels(), replace(made(), postprocessing=KEEP_BRIGHT)
    label = Predictor([chosen, chosen]).label_map(volume).array[0]
    assert np.count_nonzero(label == 7) == 2 * 3 * 4
    assert label[4, 8, 6] == 0
    assert np.count_nonzero(label == 1) == 2
    raw = Predictor([chosen], postprocess=False)
    assert raw.label_map(volume).array[0, 4, 8, 6] == 7
    np.testing.assert_array_equal(Predictor([chosen]).probabilities(volume), raw.probabilities(volume))


def test_models_that_say_different_things_are_refused_unless_nothing_is_postprocessed():
    models = [made(), replace(made(), postprocessing=KEEP_BRIGHT)]
    with pytest.raises(CheckpointError, match=r"its postprocessing is not that of .*--no-postprocess"):
        Predictor(models)
    Predictor(models, postprocess=False)
    Predictor([made(), replace(made(), postprocessing=Postprocessing().to_dict())])  # no choice, and none chosen


def test_a_postprocessing_of_another_version_is_refused():
    with pytest.raises(CheckpointError, match=r"is not one of this voxelseg.*Update voxelseg"):
        Predictor([replace(made(), postprocessing={"least_ml": 3})])


def test_the_settings_of_a_prediction_name_all_that_decides_it():
    chosen = replace(made(), postprocessing=KEEP_BRIGHT)
    settings = prediction_settings([chosen], {"overlap": 0.5, "tta": False}, postprocess=True)
    assert settings == {
        "models": [chosen.fingerprint()],
        "overlap": 0.5,
        "tta": False,
        "postprocessing": KEEP_BRIGHT,
    }
    assert prediction_settings([chosen], {}, postprocess=False)["postprocessing"] is None

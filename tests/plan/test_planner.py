from collections.abc import Callable
from math import prod

import pytest

from voxelseg.data import read_dataset
from voxelseg.errors import ConfigError, DataError
from voxelseg.plan import PlanLimits, compute_fingerprint, make_plan
from voxelseg.plan.fingerprint import CaseFingerprint, Fingerprint, IntensityStatistics
from voxelseg.plan.planner import override_plan


def multiples(*divisor: int) -> Callable[..., tuple[int, ...]]:
    """What a network says whose divisor is the same for every plan."""
    return lambda strides, kernels: divisor


def measured_case(
    *,
    shape: tuple[int, int, int] = (40, 60, 50),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    nonzero: tuple[int, int, int] | None = None,
    centroids: dict[str, tuple[float, float, float]] | None = None,
    spread: float = 5.0,
) -> CaseFingerprint:
    centroids = centroids or {}
    return CaseFingerprint(
        shape=shape,
        spacing_mm=spacing,
        nonzero_shape=nonzero or shape,
        class_volumes_ml=dict.fromkeys(centroids, 1.0),
        class_centroids_mm=centroids,
        class_spreads_mm=dict.fromkeys(centroids, (spread,) * 3),
    )


def measured_set(
    *cases: CaseFingerprint, channels: tuple[str, ...] = ("MRI",), classes: tuple[str, ...] = ("liver",)
) -> Fingerprint:
    seen = IntensityStatistics(
        mean=80.0, std=20.0, minimum=-100.0, maximum=300.0, percentile_00_5=-10.0, median=85.0, percentile_99_5=200.0
    )
    return Fingerprint(
        channels=channels,
        classes=classes,
        cases={f"case_{number}": case for number, case in enumerate(cases)},
        intensities=(seen,) * len(channels),
    )


def two_classes(*offsets_mm: float, spread: float = 5.0) -> Fingerprint:
    """The spleen lies `offsets_mm` after the liver along W, one number per case; nowhere apart along D and H."""
    cases = [
        measured_case(centroids={"liver": (20.0, 30.0, 25.0), "spleen": (20.0, 30.0, 25.0 + offset)}, spread=spread)
        for offset in offsets_mm
    ]
    return measured_set(*cases, classes=("liver", "spleen"))


# Spacing and axes


def test_isotropic_scans_keep_their_axes_and_take_the_median_spacing():
    cases = [measured_case(spacing=(mm, 1.0, 1.4 - mm / 10)) for mm in (1.0, 1.5, 4.0)]
    plan = make_plan(measured_set(*cases))
    assert plan.axes == (0, 1, 2)
    assert plan.spacing_mm == (1.5, 1.0, 1.25)
    assert not plan.anisotropic


def test_spacing_is_free_of_the_rounding_of_headers():
    plan = make_plan(measured_set(measured_case(spacing=(9.0, 1.399999976158142, 1.399999976158142))))
    assert plan.spacing_mm == (9.0, 1.4, 1.4)


def test_the_coarse_axis_becomes_d():
    plan = make_plan(measured_set(measured_case(shape=(200, 220, 20), spacing=(0.5, 0.6, 4.0))))
    assert plan.axes == (2, 0, 1)
    assert plan.spacing_mm == (4.0, 0.5, 0.6)
    assert plan.median_shape == (20, 200, 220)
    assert plan.anisotropic
    assert any("D is left-right" in note for note in plan.notes)


def test_three_times_coarser_is_not_yet_anisotropic():
    plan = make_plan(measured_set(measured_case(shape=(20, 200, 220), spacing=(3.0, 1.0, 0.9))))
    assert not plan.anisotropic


def test_few_thick_slices_are_resampled_to_the_tenth_percentile():
    # Spacings 3, 4, ... 13: the 10th percentile is 4.
    cases = [measured_case(shape=(20, 200, 200), spacing=(float(mm), 1.0, 1.0)) for mm in range(3, 14)]
    plan = make_plan(measured_set(*cases))
    assert plan.spacing_mm == (4.0, 1.0, 1.0)
    assert plan.anisotropic


def test_the_tenth_percentile_is_never_finer_than_the_other_axes():
    spacings = [(0.5, 1.0, 1.0)] * 2 + [(5.0, 1.0, 1.0)] * 3
    plan = make_plan(measured_set(*(measured_case(shape=(20, 200, 200), spacing=one) for one in spacings)))
    assert plan.spacing_mm == (1.0, 1.0, 1.0)
    assert not plan.anisotropic


def test_many_thick_slices_keep_their_median():
    cases = [measured_case(shape=(90, 100, 100), spacing=(float(mm), 1.0, 1.0)) for mm in range(3, 14)]
    plan = make_plan(measured_set(*cases))
    assert plan.spacing_mm == (8.0, 1.0, 1.0)
    assert plan.anisotropic


def test_median_shape_is_that_of_the_cropped_and_resampled_scans():
    cases = [
        measured_case(shape=(90, 90, 90), nonzero=size, spacing=(2.0, 1.0, 1.0))
        for size in ((10, 20, 30), (30, 40, 51))
    ]
    cases.append(measured_case(shape=(90, 90, 90), nonzero=(40, 60, 50), spacing=(1.0, 1.0, 1.0)))
    # at 2 x 1 x 1 mm: (10, 20, 30), (30, 40, 51), (20, 60, 50)
    assert make_plan(measured_set(*cases)).median_shape == (20, 40, 50)


def test_median_shape_is_that_of_whole_scans_where_nothing_is_cropped_first():
    fingerprint = measured_set(measured_case(shape=(90, 80, 70), nonzero=(10, 20, 30), spacing=(2.0, 1.0, 1.0)))
    assert make_plan(fingerprint, None, {"crop": "positive", "spacing_mm": [1, 1, 1]}).median_shape == (180, 80, 70)
    fixed = {"crop": "none", "resampling": "none", "spacing_mm": [1, 1, 1]}
    assert make_plan(fingerprint, None, fixed).median_shape == (90, 80, 70)


# Intensities


def test_ct_is_clipped_to_the_foregrounds_percentiles():
    (rule,) = make_plan(measured_set(measured_case(), channels=(" CT ",))).normalization
    assert (rule.kind, rule.window, rule.mean, rule.std) == ("ct", (-10.0, 200.0), 80.0, 20.0)


def test_a_ct_with_constant_foreground_still_has_a_window():
    flat = IntensityStatistics(
        mean=5.0, std=0.0, minimum=5.0, maximum=5.0, percentile_00_5=5.0, median=5.0, percentile_99_5=5.0
    )
    fingerprint = measured_set(measured_case(), channels=("CT",)).model_copy(update={"intensities": (flat,)})
    (rule,) = make_plan(fingerprint).normalization
    assert (rule.window, rule.std) == ((5.0, 6.0), 1.0)


def test_other_channels_are_normalised_by_their_own_scan():
    fingerprint = measured_set(measured_case(), channels=("T1", "noNorm", "rescale_to_0_1"))
    assert [rule.kind for rule in make_plan(fingerprint).normalization] == ["zscore", "none", "range_0_1"]


def test_scans_with_much_black_are_normalised_inside_it():
    # half of the scans keep 7/10 of their voxels, half 8/10: the median is just 0.75; then below
    cases = [measured_case(shape=(10, 20, 30), nonzero=(d, 20, 30)) for d in (7, 8)]
    assert make_plan(measured_set(*cases)).normalization[0].kind == "zscore"
    cases.append(measured_case(shape=(10, 20, 30), nonzero=(7, 20, 30)))
    assert make_plan(measured_set(*cases)).normalization[0].kind == "zscore_nonzero"


# Patch and batch


def test_a_patch_that_fits_is_the_median_scan_in_multiples_of_the_divisor():
    plan = make_plan(measured_set(measured_case()), PlanLimits(divisor=multiples(16, 16, 8), voxels_per_step=10**9))
    assert plan.patch_size == (48, 64, 56)
    assert any("longer than the median scan along D, H, W" in note for note in plan.notes)


def test_a_large_scan_gives_a_patch_near_a_cube_in_mm():
    fingerprint = measured_set(measured_case(shape=(150, 512, 512), spacing=(2.0, 0.8, 0.8)))
    plan = make_plan(fingerprint, PlanLimits(divisor=multiples(8, 8, 8), voxels_per_step=2 * 100_000))
    assert prod(plan.patch_size) <= 100_000
    lengths = [size * mm for size, mm in zip(plan.patch_size, plan.spacing_mm, strict=True)]
    assert max(lengths) / min(lengths) < 1.3


def test_thin_scans_keep_all_their_slices():
    fingerprint = measured_set(measured_case(shape=(10, 256, 216), spacing=(9.0, 1.4, 1.4)))
    assert make_plan(fingerprint, PlanLimits(voxels_per_step=300_000)).patch_size == (10, 112, 128)
    fixed = make_plan(fingerprint, PlanLimits(divisor=multiples(16, 16, 16), voxels_per_step=300_000))
    assert fixed.patch_size == (16, 96, 96)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (1, 300, 300), (2, 9, 400), (33, 500, 17), (7, 8, 9)])
@pytest.mark.parametrize("divisor", [None, (16, 16, 16), (4, 32, 8)])
def test_every_patch_fits_the_budget_the_divisor_and_the_network(shape, divisor):
    limits = PlanLimits(voxels_per_step=60_000, **({"divisor": multiples(*divisor)} if divisor else {}))
    plan = make_plan(measured_set(measured_case(shape=shape)), limits)
    reach = [prod(stride[axis] for stride in plan.strides) for axis in range(3)]
    steps = divisor or reach
    blocks = [size // step for size, step in zip(plan.patch_size, steps, strict=True)]
    assert all(size % step == 0 for size, step in zip(plan.patch_size, steps, strict=True))
    assert prod(blocks) > 1  # a single voxel at the lowest resolution cannot be normalised
    assert len(plan.strides) >= 2
    assert prod(plan.patch_size) <= 30_000 or max(blocks) <= 2


def test_a_budget_that_the_smallest_batch_of_the_smallest_patch_exceeds_is_an_error():
    fingerprint = measured_set(measured_case())
    fits = PlanLimits(divisor=multiples(16, 16, 16), voxels_per_step=2 * 16 * 16 * 32)
    assert sorted(make_plan(fingerprint, fits).patch_size) == [16, 16, 32]
    message = r"16383 voxels fit .* a batch of 2 of the smallest patch, \d+ x \d+ x \d+, has 16384.*--memory-gb"
    limits = PlanLimits(divisor=multiples(16, 16, 16), voxels_per_step=2 * 16 * 16 * 32 - 1)
    with pytest.raises(ConfigError, match=message):
        make_plan(fingerprint, limits)
    with pytest.raises(ConfigError, match="a batch of 3 of the smallest patch"):
        make_plan(fingerprint, fits, {"batch_size": 3})
    assert make_plan(fingerprint, limits, {"batch_size": 1}).batch_size == 1


def test_a_patch_by_hand_may_exceed_the_budget_and_is_noted():
    limits = PlanLimits(divisor=multiples(16, 16, 16), voxels_per_step=100_000)
    plan = make_plan(measured_set(measured_case()), limits, {"patch_size": [64, 64, 64]})
    assert (plan.patch_size, plan.batch_size) == ((64, 64, 64), 2)
    note = "A training step holds 524288 voxels, more than the 100000 that it is meant to hold."  # 2 x 64^3
    assert note in plan.notes
    small = make_plan(measured_set(measured_case()), limits, {"patch_size": [32, 32, 32]})
    assert not [one for one in small.notes if "training step" in one]


def test_batch_grows_with_the_budget_up_to_a_twentieth_of_the_data():
    cases = [measured_case(shape=(40, 40, 40))] * 60  # 60 scans that are patches: a twentieth is 3
    limits = {"divisor": multiples(8, 8, 8), "min_batch_size": 2}
    assert make_plan(measured_set(*cases), PlanLimits(voxels_per_step=10**7, **limits)).batch_size == 3
    assert make_plan(measured_set(*cases * 20), PlanLimits(voxels_per_step=10**7, **limits)).batch_size == 32
    assert make_plan(measured_set(*cases * 20), PlanLimits(voxels_per_step=64_000 * 5, **limits)).batch_size == 5
    assert make_plan(measured_set(cases[0]), PlanLimits(voxels_per_step=10**7, **limits)).batch_size == 2


@pytest.mark.parametrize("limits", [{"voxels_per_step": 0}, {"min_batch_size": 3, "max_batch_size": 2}])
def test_impossible_limits_are_errors(limits):
    with pytest.raises(ConfigError, match="limits"):
        PlanLimits(**limits)


# Topology of the U-Net


def test_hippocampus_gets_nnunets_levels():
    plan = make_plan(measured_set(measured_case(shape=(36, 50, 35))))
    assert plan.patch_size == (40, 56, 40)
    assert plan.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert plan.kernels == ((3, 3, 3),) * 4


def test_thick_slices_get_nnunets_anisotropic_levels():
    # nnU-Net's published plan of ACDC: 5 x 1.5625 x 1.5625 mm, patch 20 x 256 x 224.
    fingerprint = measured_set(measured_case(shape=(18, 237, 208), spacing=(5.0, 1.5625, 1.5625)))
    plan = make_plan(fingerprint, PlanLimits(voxels_per_step=10**8))
    assert plan.patch_size == (20, 256, 224)
    assert plan.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert plan.kernels == ((1, 3, 3), *((3, 3, 3),) * 5)


def test_a_single_short_axis_is_not_halved():
    # H could be halved once more to 4 voxels, but alone only from 12 on.
    plan = make_plan(measured_set(measured_case(shape=(4, 8, 4))), PlanLimits(divisor=multiples(4, 8, 4)))
    assert plan.patch_size == (4, 16, 4)
    assert plan.strides == ((1, 1, 1), (1, 2, 1))


# Mirroring


def test_a_consistent_order_forbids_mirroring_along_its_axis_alone():
    plan = make_plan(two_classes(*[12.0] * 10))
    assert plan.mirror_axes == (0, 1)
    assert "W (left-right) has a direction: liver lies left of spleen." in plan.notes
    assert make_plan(two_classes(*[-12.0] * 10)).mirror_axes == (0, 1)


def test_nine_of_ten_cases_make_an_order_and_eight_do_not():
    assert make_plan(two_classes(*[12.0] * 9, -12.0)).mirror_axes == (0, 1)
    assert make_plan(two_classes(*[12.0] * 8, -12.0, -12.0)).mirror_axes == (0, 1, 2)


def test_less_than_a_voxel_is_no_order():
    # rings around each other: centroids differ by less than the spacing of 1 mm
    assert make_plan(two_classes(*[0.9] * 20)).mirror_axes == (0, 1, 2)


def test_few_cases_show_an_order_only_of_classes_beside_each_other():
    # nested within each other, 3 of 10 mm spread: with 7 cases it may be chance, with 8 hardly
    assert make_plan(two_classes(*[3.0] * 7)).mirror_axes == (0, 1, 2)
    assert make_plan(two_classes(*[3.0] * 8)).mirror_axes == (0, 1)
    assert make_plan(two_classes(12.0)).mirror_axes == (0, 1)


def test_one_class_gives_no_order_and_missing_classes_are_left_out():
    assert make_plan(measured_set(measured_case(centroids={"liver": (1.0, 2.0, 3.0)}))).mirror_axes == (0, 1, 2)
    cases = [measured_case(centroids={"liver": (1.0, 2.0, 3.0)})] * 5
    cases.append(measured_case(centroids={"liver": (9.0, 9.0, 9.0), "spleen": (9.0, 30.0, 9.0)}))
    assert make_plan(measured_set(*cases, classes=("liver", "spleen"))).mirror_axes == (0, 2)


def test_mirror_axes_follow_the_plans_order_of_axes():
    places = {"liver": (100.0, 50.0, 40.0), "spleen": (20.0, 50.0, 40.0)}  # apart along inferior-superior
    case = measured_case(shape=(200, 220, 20), spacing=(0.5, 0.6, 4.0), centroids=places)
    plan = make_plan(measured_set(*[case] * 9, classes=("liver", "spleen")))
    assert plan.axes == (2, 0, 1)
    assert plan.mirror_axes == (0, 2)
    assert "H (inferior-superior) has a direction: spleen lies inferior of liver." in plan.notes


def test_an_order_that_is_mirrored_by_hand_is_noted():
    plan = make_plan(two_classes(*[12.0] * 10), overrides={"mirror_axes": [2]})
    assert plan.mirror_axes == (2,)
    assert any("has a direction, although it is in mirror_axes" in note for note in plan.notes)


# Overrides


def test_what_follows_from_a_fixed_value_is_derived_from_it():
    fingerprint = measured_set(measured_case(shape=(40, 60, 50)))
    plan = make_plan(fingerprint, PlanLimits(divisor=multiples(8, 8, 8)), {"spacing_mm": [2, 2, 2]})
    assert plan.median_shape == (20, 30, 25)
    assert plan.patch_size == (24, 32, 32)
    assert "spacing_mm was set by hand." in plan.notes
    coarse = make_plan(fingerprint, None, {"spacing_mm": [8, 2, 2]})
    assert coarse.anisotropic
    assert not make_plan(fingerprint, None, {"spacing_mm": [8, 2, 2], "anisotropic": False}).anisotropic


def test_a_fixed_patch_decides_batch_and_levels():
    fingerprint = measured_set(*[measured_case()] * 100)
    plan = make_plan(fingerprint, PlanLimits(voxels_per_step=32**3 * 7), {"patch_size": [32, 32, 32]})
    assert plan.patch_size == (32, 32, 32)
    assert plan.batch_size == 7
    assert len(plan.strides) == 4


def test_a_fixed_batch_decides_the_patch():
    fingerprint, limits = measured_set(measured_case()), PlanLimits(divisor=multiples(8, 8, 8), voxels_per_step=200_000)
    free, fixed = make_plan(fingerprint, limits), make_plan(fingerprint, limits, {"batch_size": 8})
    assert prod(free.patch_size) > 50_000
    assert fixed.batch_size == 8
    assert 15_000 < prod(fixed.patch_size) <= 25_000  # an eighth


def test_values_that_replace_a_plan_s_change_nothing_but_themselves_and_the_notes():
    fingerprint = two_classes(*[12.0] * 10)
    plan = make_plan(fingerprint, PlanLimits(divisor=multiples(8, 8, 8)), {"batch_size": 3})
    assert "Mirrored in training and test-time augmentation: D, H." in plan.notes
    changed = override_plan(plan, fingerprint, {"mirror_axes": [2], "patch_size": [64, 64, 64]})
    assert changed.changed(notes=()) == plan.changed(mirror_axes=[2], patch_size=[64, 64, 64], notes=())
    assert "Mirrored in training and test-time augmentation: W." in changed.notes
    assert not [note for note in changed.notes if note.endswith(": D, H.")]
    assert any("has a direction, although it is in mirror_axes" in note for note in changed.notes)
    assert any("longer than the median scan along D, H, W" in note for note in changed.notes)
    by_hand = [note.split()[0] for note in changed.notes if note.endswith("was set by hand.")]
    assert by_hand == ["patch_size", "batch_size", "mirror_axes"]


def test_a_plan_that_nothing_is_replaced_in_stays_as_it_is():
    fingerprint = two_classes(*[12.0] * 10)
    plan = make_plan(fingerprint).changed(notes=["my own"])
    assert override_plan(plan, fingerprint, {}) == plan
    assert override_plan(plan, fingerprint, {"notes": ["other"]}).notes == ("other",)
    with pytest.raises(ConfigError, match="patchsize: unknown key"):
        override_plan(plan, fingerprint, {"patchsize": 3})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"patchsize": [1, 2, 3]}, r"patchsize: unknown key .*keys of a plan are channels, axes, spacing_mm"),
        ({"patch_size": [32, 64]}, r"patch_size.2: Field required"),
        ({"patch_size": "large"}, r"patch_size: should be a list.*got 'large'"),
        ({"spacing_mm": [1, 0, 1]}, r"spacing_mm.1: .*greater than 0 \(got 0\)"),
        ({"spacing_mm": [1, float("nan"), 1]}, r"spacing_mm.1: .*finite"),
        ({"axes": [0, 0, 1]}, r"axes: expected 0, 1 and 2, each once \(got \[0, 0, 1\]\)"),
        ({"batch_size": 0}, r"batch_size: .*greater than 0 \(got 0\)"),
        ({"mirror_axes": [3]}, r"mirror_axes.0: .*less than or equal to 2"),
        ({"mirror_axes": [1, 1]}, r"mirror_axes: names an axis twice \(got \[1, 1\]\)"),
        ({"normalization": [{"kind": "minmax"}]}, r"normalization.0.kind: .*'ct', 'zscore'.*got 'minmax'"),
        ({"normalization": [{"kind": "ct"}]}, r"normalization.0: a ct normalization needs window"),
        ({"normalization": []}, r"0 normalizations for 1 channels"),
        ({"strides": [[1, 1, 1]]}, r"1 strides for 4 kernels"),
        ({"kernels": [[1, 1, 0]] * 4}, r"kernels.0.2: .*greater than 0"),
        ({"batch_size": 0, "patch_size": [0, 8, 8]}, r"patch_size.0.*; batch_size"),
    ],
)
def test_a_bad_override_names_its_key(overrides, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(measured_set(measured_case()), None, overrides)


def test_an_empty_fingerprint_is_an_error():
    with pytest.raises(DataError, match="no case"):
        make_plan(measured_set())


# Real scans


@pytest.mark.parametrize(
    ("name", "spacing", "mirrored", "unet_patch", "patch_16"),
    [
        ("msd_hippocampus", (1, 1, 1), (), (40, 56, 40), (48, 64, 48)),
        ("la_mri", (0.625, 0.625, 0.625), (0, 1, 2), (48, 48, 56), (48, 48, 64)),
        ("Dataset027_ACDC", (9, 1.4, 1.4), (1,), (10, 112, 128), (16, 96, 96)),
        ("Dataset015_BraTS", (1, 1, 1), (0, 1, 2), (48, 48, 56), (48, 48, 64)),
    ],
)
def test_plans_of_real_sets(shared_data, name, spacing, mirrored, unet_patch, patch_16):
    fingerprint = compute_fingerprint(read_dataset(shared_data / name))
    plan = make_plan(fingerprint, PlanLimits(voxels_per_step=300_000))
    assert plan.spacing_mm == spacing
    assert plan.axes == (0, 1, 2)
    assert plan.mirror_axes == mirrored
    assert plan.patch_size == unet_patch
    fixed = make_plan(fingerprint, PlanLimits(divisor=multiples(16, 16, 16), voxels_per_step=300_000))
    assert fixed.patch_size == patch_16

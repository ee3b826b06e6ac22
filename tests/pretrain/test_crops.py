from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from voxelseg.data.dataset import Case
from voxelseg.data.labels import NO_LABELS
from voxelseg.patches.loader import load_batches
from voxelseg.preprocess import store as store_module
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.crops import CropSource, ScanCrops, crop_warnings, held_out_scans
from voxelseg.pretrain.methods.method import Crops, Sample

SIZE = (4, 6, 8)


@dataclass(frozen=True)
class Whole:
    """The crop itself, and a number drawn after it."""

    def __call__(self, crops: Crops, generator: np.random.Generator) -> Sample:
        crop = torch.from_numpy(crops.random(generator))
        return {"image": crop, "drawn": torch.tensor(generator.random())}


@pytest.fixture
def store_scan(tmp_path) -> Callable[..., StoredCase]:
    """Function that stores a scan (1, D, H, W) whose voxels hold their own number, counted from 1."""

    def store(name: str, shape: tuple[int, int, int]) -> StoredCase:
        image = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(1, *shape)
        store_module._write_case(tmp_path / name, image, None, {"id": name, "key": "", "inputs": []}, NO_LABELS)
        return StoredCase(name, tmp_path / name)

    return store


@pytest.fixture
def source(store_scan) -> CropSource:
    scans = [store_scan("a", (9, 8, 12)), store_scan("b", (4, 7, 9)), store_scan("c", (3, 10, 8))]
    return CropSource(scans=scans, crop_size=SIZE, batch_size=2, drawer=Whole(), seed=7)


def start_of(crop: np.ndarray, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Place of a crop's first voxel in a scan of `store_scan`."""
    return tuple(int(index) for index in np.unravel_index(int(crop.flat[0]) - 1, shape))


def test_random_crops_reach_every_place_and_lie_in_the_scan(store_scan):
    crops, generator = ScanCrops(store_scan("a", (5, 8, 9)), SIZE), np.random.default_rng(0)
    starts = set()
    for _ in range(200):
        crop = crops.random(generator)
        assert crop.shape == (1, *SIZE)
        assert crop.dtype == np.float32
        assert crop.min() > 0
        starts.add(start_of(crop, (5, 8, 9)))
    assert starts == {(d, h, w) for d in range(2) for h in range(3) for w in range(2)}


def test_crops_of_a_scan_have_its_number_wherever_the_scan_stands(store_scan):
    a, b = store_scan("a", (5, 8, 9)), store_scan("b", (5, 8, 9))
    assert ScanCrops(a, SIZE).scan_number == ScanCrops(a, (2, 2, 2)).scan_number >= 0
    assert ScanCrops(a, SIZE).scan_number != ScanCrops(b, SIZE).scan_number


def test_a_scan_smaller_than_a_crop_lies_in_its_middle_with_zeros_around(store_scan):
    scan = store_scan("small", (2, 6, 5))
    crop = ScanCrops(scan, SIZE).random(np.random.default_rng(0))
    assert (crop[0, 1:3, :, 2:7] == scan.image[0]).all()  # of 2 and 3 missing voxels, 1 and 2 lie before
    assert np.count_nonzero(crop) == 2 * 6 * 5
    first, second = ScanCrops(scan, SIZE).overlapping(np.random.default_rng(0))
    assert (first == crop).all()
    assert (second == crop).all()


def test_overlapping_crops_share_half_or_more_along_every_axis(store_scan):
    shape = (20, 30, 9)
    crops, generator = ScanCrops(store_scan("a", shape), SIZE), np.random.default_rng(0)
    apart = []
    for _ in range(300):
        first, second = (np.array(start_of(crop, shape)) for crop in crops.overlapping(generator))
        apart.append(second - first)
    assert np.abs(apart).max(axis=0).tolist() == [2, 3, 1]  # half of 4 and 6; along W there is room for 1
    assert np.min(apart, axis=0).tolist() == [-2, -3, -1]


def test_each_epoch_takes_every_scan_once_in_another_order(source):
    told = source.cases_of(range(30))
    epochs = [tuple(told[first : first + 3]) for first in range(0, 30, 3)]
    assert all(sorted(epoch) == ["a", "b", "c"] for epoch in epochs)
    assert len(set(epochs)) > 1
    assert replace(source, seed=8).cases_of(range(30)) != told
    assert source.cases_of([5]) == [told[5]]


def test_a_sample_depends_on_seed_and_number_only(source):
    alone = source.sample(11)
    for number in (3, 11):
        sample = source.dataset()[number]
    assert all((alone[name] == sample[name]).all() for name in alone)
    assert (replace(source, seed=8).sample(11)["drawn"] != alone["drawn"]).all()
    assert replace(source, batch_size=1).sample(11)["drawn"] == alone["drawn"]


def test_batches_are_the_same_from_any_number_of_processes_and_any_start(source):
    def some(first: int, workers: int) -> list[Sample]:
        batches = load_batches(source, first_sample=first, workers=workers)
        return [next(batches) for _ in range(2)]

    plain = some(4, 0)
    assert plain[0]["image"].shape == (2, 1, *SIZE)
    assert plain[0]["drawn"].tolist() == [source.sample(4)["drawn"], source.sample(5)["drawn"]]
    assert all((one[name] == other[name]).all() for one, other in zip(plain, some(4, 1), strict=True) for name in one)
    assert (some(6, 0)[0]["image"] == plain[1]["image"]).all()


def cases(*patients: str) -> list[Case]:
    return [Case(f"scan_{number}", (Path("x"),), patient=patient) for number, patient in enumerate(patients)]


def test_held_out_scans_are_of_other_patients_and_drawn_with_the_seed():
    scans = cases(*(f"p{number // 2}" for number in range(40)))  # 20 patients of two scans
    learnt, held_out = held_out_scans(scans, share=0.1, seed=0)
    assert (len(learnt), len(held_out)) == (36, 4)
    assert not {case.patient for case in learnt} & {case.patient for case in held_out}
    assert [case.id for case in learnt] == [case.id for case in scans if case in learnt]
    assert held_out_scans(scans, share=0.1, seed=0) == (learnt, held_out)
    assert len({tuple(held_out_scans(scans, share=0.1, seed=seed)[1]) for seed in range(5)}) > 1
    assert held_out_scans(scans[::-1], share=0.1, seed=0)[1] == held_out[::-1]


@pytest.mark.parametrize(
    ("patients", "share", "held_out"),
    [
        (("a", "b"), 0.1, 1),  # at least one of two
        (("a", "a", "a"), 0.1, 0),  # nobody else to hold out
        (("a",), 0.1, 0),
        (("a", "b", "c"), 0.0, 0),
        (("a", "b", "c"), 0.99, 2),  # someone is left to learn from
    ],
)
def test_few_patients_are_shared_out_sensibly(patients, share, held_out):
    learnt, held = held_out_scans(cases(*patients), share=share, seed=3)
    assert (len(learnt), len(held)) == (len(patients) - held_out, held_out)


@pytest.mark.parametrize("seed", range(20))
def test_a_patient_with_most_scans_is_learnt_from(seed):
    scans = cases(*["most"] * 90, *(f"p{number}" for number in range(10)))
    learnt, held_out = held_out_scans(scans, share=0.1, seed=seed)
    # All ten others may be held out, since somebody is left
    assert (len(learnt), len(held_out)) == (90, 10)
    assert {case.patient for case in learnt} == {"most"}


@pytest.mark.parametrize(
    ("sizes", "share", "held_out"),
    [
        ((3, 3, 3, 3, 3, 3, 3, 3, 3, 3), 0.1, 3),
        ((3, 3, 3, 3, 3, 3, 3, 3, 3, 3), 0.15, 3),  # 4 wanted
        ((3, 3, 3, 3, 3, 3, 3, 3, 3, 3), 0.17, 6),  # 5 wanted
        ((9, 9, 6), 0.1, 6),  # 2 wanted, and all have too many: the fewest
        ((9, 1), 0.1, 1),
        ((9, 9), 0.1, 9),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_as_near_to_the_share_is_held_out_as_whole_patients_allow(sizes, share, held_out, seed):
    scans = cases(*(f"p{number}" for number, size in enumerate(sizes) for _ in range(size)))
    assert len(held_out_scans(scans, share=share, seed=seed)[1]) == held_out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("share", "number"), [(0.1, 1), (0.3, 4), (0.99, 11)])
def test_of_patients_with_one_scan_the_first_ones_drawn_are_held_out(share, number, seed):
    names = [f"p{index:02}" for index in range(12)]
    expected = {names[index] for index in np.random.default_rng(seed).permutation(12)[:number]}
    assert {case.patient for case in held_out_scans(cases(*names), share=share, seed=seed)[1]} == expected


def test_as_many_scans_are_held_out_as_a_method_needs():
    assert [len(part) for part in held_out_scans(cases(*"abcd"), share=0.1, seed=3, least=2)] == [2, 2]
    assert [len(part) for part in held_out_scans(cases(*"ab"), share=0.1, seed=3, least=2)] == [1, 1]
    assert [len(part) for part in held_out_scans(cases(*"abcd"), share=0.0, seed=3, least=2)] == [4, 0]


def test_scans_that_fill_little_of_a_crop_are_named(store_scan):
    fitting, thin = store_scan("fitting", (4, 6, 8)), store_scan("thin", (1, 6, 8))
    assert crop_warnings([fitting], SIZE) == []
    assert crop_warnings([store_scan("half", (2, 6, 8))], SIZE) == []
    (warning,) = crop_warnings([fitting, thin], SIZE)
    assert warning.startswith("1 of 2 scans (thin) fill less than half of a crop of 4 x 6 x 8 voxels; at worst, 75% of")
    assert "plan.patch_size" in warning

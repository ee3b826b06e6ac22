import dataclasses
import multiprocessing
import os
import signal
import time
from itertools import islice

import numpy as np
import pytest
import torch

from voxelseg.errors import ConfigError, DataError, WorkerError
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.loader import PatchDataset, PatchSource, load_batches
from voxelseg.patches.sampler import Sampling

PATCH = (8, 10, 12)


@pytest.fixture
def source(cases) -> PatchSource:
    return PatchSource(
        cases=cases,
        patch_size=PATCH,
        batch_size=2,
        sampling=Sampling(foreground_share=0.33),
        augmentation=AugmentationConfig(rotation=0.5, scaling=0.5),
        mirror_axes=(0, 2),
        anisotropic=False,
        seed=7,
    )


def batches(source: PatchSource, count: int, *, first_sample: int = 0, workers: int = 0):
    return list(islice(load_batches(source, first_sample=first_sample, workers=workers), count))


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


def test_batches_have_the_plans_shape(source):
    ((image, target),) = batches(source, 1)
    assert (image.shape, image.dtype) == ((2, 2, *PATCH), torch.float32)
    assert (target.shape, target.dtype) == ((2, *PATCH), torch.int16)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(source, workers):
    assert equal(batches(source, 5), batches(source, 5, workers=workers))


def test_starting_later_gives_the_tail(source):
    assert equal(batches(source, 5)[2:], batches(source, 3, first_sample=4))


@pytest.mark.parametrize("num_processes", [2, 4])
def test_the_batches_of_all_processes_in_a_row_are_the_whole_ones(source, num_processes):
    source = dataclasses.replace(source, batch_size=4)
    shares = [
        list(islice(load_batches(source, first_sample=4, workers=0, process=rank, num_processes=num_processes), 2))
        for rank in range(num_processes)
    ]
    joined = [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*shares, strict=True)]
    assert equal(joined, batches(source, 2, first_sample=4))


def test_seeds_differ_and_batches_do_too(source):
    first = batches(source, 2)
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(first[0][0], batches(dataclasses.replace(source, seed=8), 1)[0][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_left_alone(source, workers):
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    batches(source, 2, workers=workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_the_forced_share_holds_foreground(source):
    plain = dataclasses.replace(
        source,
        batch_size=4,
        sampling=Sampling(foreground_share=0.5),
        augmentation=AugmentationConfig(enabled=False),
    )
    found = torch.stack([(target > 0).flatten(1).any(1) for _, target in batches(plain, 25)])
    assert found[:, 2:].all()
    assert not found[:, :2].all()


def test_several_crops_of_a_case_fill_a_batch(source):
    pairs = dataclasses.replace(
        source,
        batch_size=4,
        sampling=Sampling(crops_per_case=2, foreground_sampling="voxel", foreground_share=0.5),
        augmentation=AugmentationConfig(enabled=False),
    )
    cases = pairs.cases_of(range(40))
    assert cases[::2] == cases[1::2]
    assert set(cases) == {"large", "small"}
    assert equal(batches(pairs, 3), batches(pairs, 3, workers=1))
    with pytest.raises(ConfigError, match=r"step of 4 .*of 3 from each case.*multiple of 3"):
        dataclasses.replace(pairs, sampling=Sampling(crops_per_case=3))
    one_by_one = dataclasses.replace(pairs, batch_size=1, accumulate=4)
    assert one_by_one.cases_of(range(40)) == cases


def test_patches_that_cannot_be_turned_are_refused(source):
    turning = AugmentationConfig(rotation90=0.2)
    with pytest.raises(ConfigError, match=r"along H and W, but plan.patch_size is \[8, 10, 12\]"):
        dataclasses.replace(source, augmentation=turning)
    dataclasses.replace(source, augmentation=turning, patch_size=(8, 10, 10))


def test_monais_augmentation_takes_nothing_from_beyond_the_patch(source, store_case):
    case = store_case("same", np.full((1, 30, 30, 30), 2.0), np.ones((30, 30, 30)))
    settings = dict.fromkeys(
        ("noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma"), 0
    )
    affine = AugmentationConfig(
        rotation=1, scaling=1, scaling_per_axis=True, outside="zeros", label_order=0, **settings
    )
    zeros = dataclasses.replace(source, cases=[case], augmentation=affine)
    assert any((image == 0).any() for image, _ in batches(zeros, 3))
    mirrored = dataclasses.replace(zeros, augmentation=affine.model_copy(update={"outside": "reflection"}))
    for image, target in batches(mirrored, 3):
        torch.testing.assert_close(image, torch.full_like(image, 2.0))
        assert (target == 1).all()


def test_without_augmentation_patches_are_stored_voxels(source, cases):
    plain = PatchDataset(dataclasses.replace(source, cases=cases[:1], augmentation=AugmentationConfig(enabled=False)))
    image, target = plain[1]
    stored = cases[0].label[:]
    windows = np.lib.stride_tricks.sliding_window_view(stored, PATCH)
    assert (windows == target.numpy()).all(axis=(3, 4, 5)).any()
    assert np.isin(image.numpy(), cases[0].image[:]).all()


def test_an_image_that_equals_its_label_stays_aligned(source, store_case):
    target = np.zeros((20, 24, 26))
    target[5:12, 6:15, 7:20] = 1
    case = store_case("same", target[None], target)
    geometry = AugmentationConfig(
        rotation=1, scaling=1, noise=0, blur=0, brightness=0, contrast=0, low_resolution=0, inverted_gamma=0, gamma=0
    )
    for image, label in batches(dataclasses.replace(source, cases=[case], augmentation=geometry), 5):
        assert torch.equal((image[:, 0] > 0.5).short(), label)


def test_background_of_masked_channels_stays_0(source, store_case):
    image = np.random.default_rng(0).normal(5, 1, (2, 20, 24, 26))
    image[:, :10] = 0
    case = store_case("brain", image, np.zeros((20, 24, 26)))
    noisy = AugmentationConfig(rotation=0, scaling=0, noise=1, noise_std=(0.5, 0.5), gamma=1)
    masked = dataclasses.replace(source, cases=[case], augmentation=noisy, masked_channels=(0,))
    images = torch.cat([images for images, _ in batches(masked, 5)])
    outside = images[:, 0] == 0
    assert 0.2 < outside.float().mean() < 0.8
    assert (images[:, 1][outside] != 0).any()


def test_anisotropic_samples_are_repeatable(source):
    flat = dataclasses.replace(source, anisotropic=True)
    assert equal(batches(flat, 3), batches(flat, 3))


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_is_told_by_the_workers_own_message(source, cases, workers):
    (cases[0].folder / "image.b2nd").write_bytes(b"")
    error = WorkerError if workers else DataError
    with pytest.raises(error, match=r"large(/image.b2nd)?: damaged or missing.* again\.$"):
        batches(source, 20, workers=workers)


class Puzzled(PatchDataset):
    def __getitem__(self, number: int):
        raise ValueError("first line\n  second line: with a colon")


def test_all_lines_of_a_workers_message_arrive(source, monkeypatch):
    monkeypatch.setattr("voxelseg.patches.loader.PatchDataset", Puzzled)
    with pytest.raises(WorkerError, match=r"loads patches failed: first line\n  second line: with a colon$"):
        batches(source, 1, workers=1)


class Slow(PatchDataset):
    def __getitem__(self, number: int):
        if number >= 4:
            time.sleep(60)
        return super().__getitem__(number)


def test_a_killed_worker_is_an_error_with_a_remedy_and_no_hang(source, monkeypatch):
    monkeypatch.setattr("voxelseg.patches.loader.PatchDataset", Slow)
    found = load_batches(source, first_sample=0, workers=1)
    next(found)
    workers = multiprocessing.active_children()
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(
        WorkerError, match=r"died .*the same command with --set train.workers=0\), or .*another --out .*batch_size=1"
    ):
        list(found)
    assert time.monotonic() - began < 30


def test_samples_of_accumulated_batches_are_those_of_one_large_batch(source):
    plain = dataclasses.replace(source, sampling=Sampling(foreground_share=0.25))
    large = dataclasses.replace(plain, batch_size=8)
    parts = dataclasses.replace(plain, batch_size=2, accumulate=4)
    for number in range(8):
        for first, second in zip(PatchDataset(large)[number], PatchDataset(parts)[number], strict=True):
            assert torch.equal(first, second)


def test_the_cases_of_samples_are_told_without_reading_them(source):
    forced = dataclasses.replace(source, sampling=Sampling(foreground_share=1.0))
    told = forced.cases_of(range(20))
    assert set(told) == {"large", "small"}
    assert forced.cases_of([3, 7]) == [told[3], told[7]]


class Numbers(torch.utils.data.Dataset):
    """Any source of samples: dictionaries of tensors."""

    seed, batch_size = 0, 2

    def dataset(self):
        return self

    def cases_of(self, numbers):
        return [str(number) for number in numbers]

    def __getitem__(self, number: int):
        return {"value": torch.tensor(number), "twice": torch.tensor([number, number])}


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_may_be_dictionaries_of_tensors(workers):
    first, second = islice(load_batches(Numbers(), first_sample=4, workers=workers), 2)
    assert (first["value"].tolist(), second["value"].tolist()) == ([4, 5], [6, 7])
    assert first["twice"].tolist() == [[4, 4], [5, 5]]

from itertools import pairwise

import numpy as np
import pytest

from voxelseg.data.labels import parse_labels
from voxelseg.patches.sampler import (
    Place,
    Sampling,
    draw_place,
    draw_sample,
    draws_foreground,
    read_place,
    sample_generator,
)

PATCH = (8, 10, 12)


def test_the_last_samples_of_a_batch_hold_foreground():
    drawn = [
        [draws_foreground(number, batch_size=4, share=0.33) for number in range(first, first + 4)] for first in (0, 4)
    ]
    assert drawn == [[False, False, False, True]] * 2  # round(1.32) = 1
    assert [draws_foreground(n, batch_size=2, share=0.33) for n in range(4)] == [False, True] * 2  # at least one
    assert [draws_foreground(n, batch_size=3, share=0.67) for n in range(3)] == [False, True, True]
    # nnU-Net: not n < round(3 * 0.5), which is 2
    assert [draws_foreground(n, batch_size=3, share=0.5) for n in range(3)] == [False, False, True]
    assert not any(draws_foreground(n, batch_size=3, share=0.0) for n in range(9))
    assert all(draws_foreground(n, batch_size=3, share=1.0) for n in range(9))


@pytest.mark.parametrize("share", [0.2, 0.33, 0.5, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("batch_size", [2, 3, 4, 5, 7, 12])
def test_as_many_hold_foreground_as_in_nnunet_but_at_least_one(batch_size, share):
    drawn = [draws_foreground(number, batch_size=batch_size, share=share) for number in range(batch_size)]
    theirs = [not number < round(batch_size * (1 - share)) for number in range(batch_size)]
    assert drawn == (theirs if any(theirs) else [False] * (batch_size - 1) + [True])


def test_batches_of_one_hold_foreground_in_their_share_of_steps():
    drawn = [draws_foreground(number, batch_size=1, share=0.33) for number in range(300)]
    assert sum(drawn) == 99
    assert not any(first and second for first, second in pairwise(drawn))


def test_draws_depend_on_seed_and_number_alone(cases):
    def starts(seed: int) -> list[tuple[str, tuple[int, int, int]]]:
        places = [
            draw_place(cases, PATCH, foreground=n % 2 == 0, generator=sample_generator(seed, n)) for n in range(20)
        ]
        return [(place.case.id, place.start) for place in places]

    assert starts(0) == starts(0)
    assert starts(0) != starts(1)


def test_places_cover_a_case_evenly_and_never_leave_it(cases):
    places = [draw_place(cases[:1], PATCH, foreground=False, generator=sample_generator(0, n)) for n in range(3000)]
    starts = np.array([place.start for place in places])
    assert starts.min(0).tolist() == [0, 0, 0]
    assert starts.max(0).tolist() == [6, 10, 10]  # 14, 20, 22 less 8, 10, 12
    for axis, count in enumerate((7, 11, 11)):
        shares = np.bincount(starts[:, axis], minlength=count) / 3000
        assert shares == pytest.approx(np.full(count, 1 / count), abs=0.03)


def test_cases_and_classes_are_drawn_equally_often(cases):
    generator = np.random.default_rng(0)
    places = [draw_place(cases, (2, 2, 2), foreground=True, generator=generator) for _ in range(2000)]
    large = [place for place in places if place.case.id == "large"]
    assert len(large) / 2000 == pytest.approx(0.5, abs=0.04)
    spleen = [place for place in large if place.start[0] == 10]  # 36 liver voxels against 4 of the spleen
    assert len(spleen) / len(large) == pytest.approx(0.5, abs=0.05)


def test_foreground_patches_hold_foreground(cases):
    for number in range(100):
        place = draw_place(cases, (3, 4, 5), foreground=True, generator=sample_generator(0, number))
        assert (read_place(place, (3, 4, 5))[1] > 0).any()


def test_a_case_without_foreground_gives_any_place(store_case):
    case = store_case("empty", np.zeros((1, 9, 9, 9)), np.zeros((9, 9, 9)))
    place = draw_place([case], (4, 4, 4), foreground=True, generator=np.random.default_rng(0))
    assert all(0 <= start <= 5 for start in place.start)


def test_a_partly_labelled_case_is_shown_where_it_is_labelled(store_case):
    target = np.full((30, 30, 30), -1)
    target[10:12] = 0
    case = store_case(
        "part", np.zeros((1, 30, 30, 30)), target, parse_labels({"background": 0, "liver": 1, "ignore": 2})
    )
    for number in range(50):
        place = draw_place([case], (4, 4, 4), foreground=number % 2 == 0, generator=sample_generator(0, number))
        assert (read_place(place, (4, 4, 4))[1] == 0).any()


# Drawing samples by their numbers


def drawn(cases, sampling: Sampling, *, count: int, patch=PATCH, batch_size: int = 4, seed: int = 0) -> list[Place]:
    return [
        draw_sample(
            cases,
            patch,
            number,
            sampling=sampling,
            batch_size=batch_size,
            seed=seed,
            generator=sample_generator(seed, number),
        )
        for number in range(count)
    ]


def test_by_default_samples_are_nnunets(cases):
    for number, place in enumerate(drawn(cases, Sampling(), count=40)):
        foreground = draws_foreground(number, batch_size=4, share=0.33)
        assert place == draw_place(cases, PATCH, foreground=foreground, generator=sample_generator(0, number))


def test_crops_of_a_group_come_from_one_case_and_differ(cases):
    places = drawn(cases, Sampling(crops_per_case=4), count=400)
    groups = [places[first : first + 4] for first in range(0, 400, 4)]
    assert all(len({place.case.id for place in group}) == 1 for group in groups)
    assert len({place.start for place in groups[0]}) > 1
    assert np.mean([group[0].case.id == "large" for group in groups]) == pytest.approx(0.5, abs=0.15)
    assert places == drawn(cases, Sampling(crops_per_case=4), count=400)
    others = drawn(cases, Sampling(crops_per_case=4), count=400, seed=1)
    assert [place.case.id for place in others] != [place.case.id for place in places]


def test_shuffled_cases_come_once_a_round_in_changing_order(store_case):
    many = [store_case(f"case{number}", np.zeros((1, 4, 4, 4)), np.zeros((4, 4, 4))) for number in range(7)]
    places = drawn(many, Sampling(case_order="shuffled", crops_per_case=2), count=7 * 2 * 5, patch=(2, 2, 2))
    rounds = [[place.case.id for place in places[first : first + 14 : 2]] for first in range(0, 70, 14)]
    assert all(sorted(one) == [case.id for case in many] for one in rounds)
    assert len({tuple(one) for one in rounds}) == 5
    assert [place.case.id for place in places[1::2]] == [place.case.id for place in places[::2]]


def test_any_voxel_of_the_foreground_or_of_the_background_is_as_likely(store_case):
    # 90 voxels of one class, 10 of another, 25 of bright background; patches of one voxel show their centre.
    target = np.zeros((5, 10, 10))
    target[0, :9], target[0, 9], image = 1, 2, np.zeros((1, 5, 10, 10))
    image[0, 4, :5, :5] = 0.5
    case = store_case("one", image, target)
    sampling = Sampling(foreground_sampling="voxel", foreground_share=0.75, background_above=0.0)
    starts = [place.start for place in drawn([case], sampling, count=4000, patch=(1, 1, 1))]
    values = np.array([target[start] for start in starts])
    assert np.mean(values == 1) == pytest.approx(0.75 * 0.9, abs=0.02)
    assert np.mean(values == 2) == pytest.approx(0.75 * 0.1, abs=0.02)
    bright = [start for start, value in zip(starts, values, strict=True) if value == 0]
    assert all(image[0][start] > 0 for start in bright)
    assert len(set(bright)) == 25
    anywhere = drawn([case], Sampling(foreground_sampling="voxel", foreground_share=0), count=200, patch=(1, 1, 1))
    assert any(image[0][place.start] == 0 for place in anywhere)
    assert not any(target[place.start] for place in anywhere)


@pytest.mark.parametrize(("label", "bright"), [(0, True), (1, False), (0, False)])
def test_a_case_that_lacks_one_kind_of_voxel_gives_the_other_or_any_place(store_case, label, bright):
    target = np.zeros((4, 5, 6))
    target[1] = label
    case = store_case("one", np.full((1, 4, 5, 6), float(bright)), target)
    sampling = Sampling(foreground_sampling="voxel", foreground_share=0.5, background_above=0.0)
    places = drawn([case], sampling, count=100, patch=(1, 1, 1))
    assert {target[place.start] for place in places} == {label}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("patch", [(4, 5, 6), (9, 10, 3), (1, 2, 11)])
def test_patches_around_voxels_lie_where_monai_crops(store_case, patch):
    utils = pytest.importorskip("monai.transforms.utils")
    shape = (9, 10, 11)
    for number in range(60):
        centre = tuple(int(value) for value in np.random.default_rng(number).integers(shape))
        target = np.zeros(shape)
        target[centre] = 1
        case = store_case(f"case{number}", np.zeros((1, *shape)), target)
        (place,) = drawn([case], Sampling(foreground_sampling="voxel", foreground_share=1), count=1, patch=patch)
        corrected = utils.correct_crop_centers(list(centre), patch, shape)
        assert place.start == tuple(int(at) - size // 2 for at, size in zip(corrected, patch, strict=True))


def test_reading_inside_gives_the_stored_voxels(cases):
    image, target = read_place(Place(cases[0], (3, 5, 1)), PATCH)
    np.testing.assert_array_equal(image, cases[0].image[:][:, 3:11, 5:15, 1:13])
    np.testing.assert_array_equal(target, cases[0].label[:][3:11, 5:15, 1:13])


def test_a_case_smaller_than_the_patch_is_centred_in_zeros(cases):
    small = cases[1]  # 5 x 12 x 9
    place = draw_place([small], PATCH, foreground=False, generator=np.random.default_rng(0))
    assert place.start[0] == -2  # 3 missing along D: 2 before, 1 after
    assert place.start[1] in (0, 1, 2)
    assert place.start[2] == -2
    image, target = read_place(place, PATCH)
    assert image.shape == (2, *PATCH)
    first = place.start[1]
    np.testing.assert_array_equal(image[:, 2:7, :, 2:11], small.image[:][:, :, first : first + 10])
    np.testing.assert_array_equal(target[2:7, :, 2:11], small.label[:][:, first : first + 10])
    image[:, 2:7, :, 2:11] = 0
    assert not image.any()


def test_a_margin_adds_what_lies_around(cases):
    plain, _ = read_place(Place(cases[0], (1, 5, 2)), PATCH)
    wide, target = read_place(Place(cases[0], (1, 5, 2)), PATCH, margin=(2, 0, 3))
    assert wide.shape == (2, 12, 10, 18)
    assert target.shape == (12, 10, 18)
    np.testing.assert_array_equal(wide[:, 2:-2, :, 3:-3], plain)
    assert not wide[:, 0].any()  # D -1 lies outside
    np.testing.assert_array_equal(wide[:, 1, :, 1:], cases[0].image[:][:, 0, 5:15, :17])

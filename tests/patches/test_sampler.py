from itertools import pairwise

import numpy as np
import pytest

from voxelseg.data.labels import parse_labels
from voxelseg.patches.sampler import Place, draw_place, draws_foreground, read_place, sample_generator

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

"""Phantoms of the public data sets: their channels and classes, a few voxels large."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from recipes import smallest_patch, train_one_step, write_phantom  # benchmarks/recipes.py

from voxelseg.data import Dataset
from voxelseg.data.convert import find_public_data
from voxelseg.data.layouts import read_dataset
from voxelseg.plan.fingerprint import Fingerprint, compute_fingerprint
from voxelseg.recipes import Recipe, find_recipe

SHAPE = (20, 24, 32)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Callable[[str], tuple[Dataset, Fingerprint]]:
    """Function that returns the phantom of a public data set, and what was measured of it."""

    @cache
    def made(name: str) -> tuple[Dataset, Fingerprint]:
        folder = tmp_path_factory.mktemp(name)
        write_phantom(find_public_data(name), folder, SHAPE, spacing_mm=(1.5, 1.0, 1.0))
        dataset = read_dataset(folder)
        return dataset, compute_fingerprint(dataset, workers=1)

    return made


@pytest.fixture
def train_step(tmp_path) -> Iterator[Callable[..., list[dict]]]:
    """Function that trains by a recipe for one step of its smallest patch, and returns the events of the log.

    What it wrote, up to gigabytes of weights and states, is deleted after the test.
    """

    def train(recipe: Recipe | str, *settings: str, out=tmp_path, **options) -> list[dict]:
        recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
        out.mkdir(exist_ok=True)
        return train_one_step(recipe, out, [f"plan.patch_size={smallest_patch(recipe)}", *settings], **options)

    yield train
    shutil.rmtree(tmp_path)

"""Comparisons of made-up contestants."""

import pytest
from scored import contestants

from voxelseg.compare.comparison import compare
from voxelseg.compare.scores import score_tables
from voxelseg.compare.settings import CompareSettings
from voxelseg.metrics import MAIN_COLUMNS
from voxelseg.report.comparison.material import Material

MEANS = {"unet_s": 0.8, "mednext_s": 0.85, "uxnet": 0.849}


def material_of(found, *, patients=None, by_class=MAIN_COLUMNS, **more):
    """Of contestants, those without runs among them."""
    runs = {one.name: one.runs for one in found if one.runs}
    tables = score_tables(runs, patients=patients, by_class=by_class)
    settings = CompareSettings(resamples=200, missing=more.pop("missing", "refuse"))
    return Material(comparison=compare(tables, settings), contestants=found, scores=tables, **more)


@pytest.fixture(scope="session")
def material():
    """Three contestants with two seeds each, of which the last two are alike."""
    return material_of(contestants(MEANS))


@pytest.fixture(scope="session")
def make_material():
    """Makes one of contestants."""
    return material_of

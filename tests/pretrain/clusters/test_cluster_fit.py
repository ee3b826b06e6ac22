import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.clusters import fit as fit_module
from voxelseg.pretrain.clusters.files import clusterer_path
from voxelseg.pretrain.clusters.fit import ClusterPlan, fit_clusterers
from voxelseg.pretrain.clusters.slices import slices_of


@pytest.fixture
def plan_of(source_of):
    def make(scans, *, seed=0, **changes):
        return ClusterPlan(source=source_of(scans, **changes), seed=seed)

    return make


def written(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("clusterer_*")}


def rows_of(scan):
    return slices_of(torch.from_numpy(scan.image[:, :6, :8, :10])[None], 0)[0]


def test_clusterers_have_sizes_in_the_range_and_label_slices(plan_of, scans, tmp_path):
    plan = plan_of(scans, num_clusterers=8)
    found = fit_clusterers(plan, tmp_path / "cache", workers=0)
    assert found.sizes == tuple(plan.num_clusters(index) for index in range(8))
    assert set(found.sizes) <= {3, 4, 5, 6}
    assert len(set(found.sizes)) > 1
    labels = found.labels(rows_of(scans[0]))
    assert labels.shape == (6, 8)
    assert (labels < torch.tensor(found.sizes)).all()
    assert found.counts.sum() >= 8 * 12  # 12 slices each, and more where 6 clusters need them


def test_seeds_differ_and_so_do_clusterers(plan_of, scans):
    plan = plan_of(scans, least_clusters=4, most_clusters=4)
    assert len({plan.kmeans_seed(index) for index in range(1000)}) == 1000
    first, second = plan.fit(0), plan.fit(1)
    assert len(first.centres) == len(second.centres) == 4
    assert not np.array_equal(first.centres, second.centres)


def test_what_is_there_is_read_and_what_is_missing_is_made(plan_of, scans, tmp_path, monkeypatch):
    whole = fit_clusterers(plan_of(scans), tmp_path / "whole", workers=0)

    def killed(folder, clusterer, write=fit_module.write_clusterer):
        if clusterer.index == 1:
            raise KeyboardInterrupt
        write(folder, clusterer)

    monkeypatch.setattr(fit_module, "write_clusterer", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_clusterers(plan_of(scans), tmp_path / "cache", workers=0)
    monkeypatch.undo()
    folder = plan_of(scans).folder(tmp_path / "cache")
    before = written(folder)
    assert list(before) == ["clusterer_0000.safetensors"]
    went_on = fit_clusterers(plan_of(scans), tmp_path / "cache", workers=0)
    after = written(folder)
    assert len(after) == 3
    assert after["clusterer_0000.safetensors"] == before["clusterer_0000.safetensors"]
    assert torch.equal(went_on._centres, whole._centres)


def test_more_clusterers_are_added_to_those_that_are_there(plan_of, scans, tmp_path):
    few = fit_clusterers(plan_of(scans), tmp_path, workers=0)
    before = written(plan_of(scans).folder(tmp_path))
    more = fit_clusterers(plan_of(scans, num_clusterers=4), tmp_path, workers=0)
    assert more.sizes[:3] == few.sizes
    after = written(plan_of(scans).folder(tmp_path))
    assert before.items() <= after.items()


def test_a_damaged_file_is_made_again(plan_of, scans, tmp_path, caplog):
    first = fit_clusterers(plan_of(scans), tmp_path, workers=0)
    path = clusterer_path(plan_of(scans).folder(tmp_path), 2)
    path.write_bytes(path.read_bytes()[:200])
    again = fit_clusterers(plan_of(scans), tmp_path, workers=0)
    assert f"{path}: damaged" in caplog.text
    assert torch.equal(first._centres, again._centres)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"max_iter": 5}, {"slice_axis": 1}, {"skip_constant": True}, {"most_slices": 20}]
)
def test_whatever_decides_has_a_folder_of_its_own(plan_of, scans, changes):
    assert plan_of(scans, **changes).key != plan_of(scans).key


def test_scans_of_other_contents_have_a_folder_of_their_own(plan_of, scans, store_scan):
    changed = [*scans[:-1], store_scan("changed", np.zeros((2, 7, 9, 11)), key="other contents")]
    same = [*scans[:-1], StoredCase(scans[-1].id, scans[-1].folder)]
    assert plan_of(changed).key != plan_of(scans).key == plan_of(same).key


def test_the_folder_says_what_decides(plan_of, scans, tmp_path):
    plan = plan_of(scans, slice_axis=2)
    fit_clusterers(plan, tmp_path, workers=0)
    said = json.loads((plan.folder(tmp_path) / "clusters.json").read_text())
    assert (said["slice_axis"], said["crop_size"], said["seed"]) == (2, [6, 8, 10], 0)
    assert said["settings"]["most_clusters"] == 6
    assert said["scans"][0] == ["scan_0", "scan_0"]


def test_progress_counts_clusterers(plan_of, scans, tmp_path):
    told = []
    fit_clusterers(plan_of(scans), tmp_path, workers=0, progress=lambda what, share: told.append((what, share)))
    assert told == [("fitting 3 clusterers", share) for share in (1 / 3, 2 / 3, 1.0)]


def test_too_few_slices_end_with_the_clusterer_and_the_remedy(plan_of, scans, tmp_path):
    with pytest.raises(DataError, match=r"5 scan.s. give 30.*most_clusters=15"):
        fit_clusterers(plan_of(scans, least_clusters=3, most_clusters=40), tmp_path, workers=0)


def test_equal_slices_count_once(plan_of, store_scan, tmp_path):
    twin = np.random.default_rng(0).normal(size=(2, 6, 8, 10))
    scans = [store_scan(f"scan_{number}", twin) for number in range(5)]
    plan = plan_of(scans, least_clusters=4, most_clusters=4)
    with pytest.raises(DataError, match=r"clusterer 1: a clusterer with 4 clusters needs 8 different slices.*give 6"):
        fit_clusterers(plan, tmp_path, workers=0)


def test_fewer_clusters_are_made_on_request(plan_of, store_scan, tmp_path):
    twin = np.random.default_rng(0).normal(size=(2, 6, 8, 10))
    scans = [store_scan(f"scan_{number}", twin) for number in range(5)]
    plan = plan_of(scans, least_clusters=4, most_clusters=4, fewer_clusters=True)
    assert fit_clusterers(plan, tmp_path, workers=0).sizes == (3, 3, 3)  # 6 slices, 2 for each


def test_constant_scans_end_with_an_error_even_so(plan_of, store_scan, tmp_path):
    scans = [store_scan(f"scan_{number}", np.full((2, 6, 8, 10), number)) for number in range(3)]
    plan = plan_of(scans, fewer_clusters=True, skip_constant=True)
    with pytest.raises(
        DataError,
        match=r"give 0, besides 18 that are constant and left out\. Pre-train on more scans that are not empty\.$",
    ):
        fit_clusterers(plan, tmp_path, workers=0)


def test_processes_are_no_more_than_the_memory_holds(source_of, scans, monkeypatch):
    source = source_of(scans)
    monkeypatch.setattr(fit_module, "free_memory", lambda _: 3 * 2 * 2 * source.expected_bytes())
    assert fit_module._affordable(16, source) == 3  # half of the free memory, twice the slices for each
    monkeypatch.setattr(fit_module, "free_memory", lambda _: 1)
    assert fit_module._affordable(16, source) == 1
    monkeypatch.setattr(fit_module, "free_memory", lambda _: None)
    assert fit_module._affordable(16, source) == 16


def test_clusterers_that_the_memory_cannot_hold_are_refused_before_anything_is_read(plan_of, monkeypatch):
    # 100,000 clusterers of 3 clusters, slices of 2 x 8 x 10 float32 numbers: 192 MB
    plan = plan_of([None] * 5, num_clusterers=100_000, most_clusters=3)
    monkeypatch.setattr(fit_module, "free_memory", lambda _: 191_000_000)
    with pytest.raises(ConfigError, match=r"centres of 100000 clusterers take 0\.192 GB of memory, and 0\.191 GB are"):
        plan.check()
    monkeypatch.setattr(fit_module, "free_memory", lambda _: 193_000_000)
    plan.check()
    # 6 clusters of 2 slices from scans of 6 slices: at most 18 slices of 640 bytes
    plan = plan_of([None] * 5, num_clusterers=1)
    monkeypatch.setattr(fit_module, "free_memory", lambda _: 18 * 640 - 1)
    with pytest.raises(
        ConfigError, match=r"the slices of one clusterer take .*masked_clusters\.most_slices, scan_share"
    ):
        plan.check()


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(plan_of, scans, tmp_path):
    alone = fit_clusterers(plan_of(scans), tmp_path / "alone", workers=0)
    together = fit_clusterers(plan_of(scans), tmp_path / "together", workers=2)
    assert torch.equal(alone._centres, together._centres)
    assert torch.equal(alone.counts, together.counts)


FITTING = """
import sys
from pathlib import Path
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.clusters.fit import ClusterPlan, fit_clusterers
from voxelseg.pretrain.clusters.settings import ClusterConfig
from voxelseg.pretrain.clusters.slices import SliceSource

root, settings = Path(sys.argv[1]), ClusterConfig.model_validate_json(sys.argv[2])
scans = [StoredCase(f"scan_{number}", root / f"scan_{number}") for number in range(5)]
source = SliceSource(settings=settings, scans=scans, crop_size=(6, 8, 10), num_channels=2, slice_axis=0)
fit_clusterers(ClusterPlan(source=source, seed=0), root / "cache", workers=0)
"""


@pytest.mark.slow
def test_a_fit_that_is_killed_goes_on_with_the_same_bits(plan_of, scans, tmp_path):
    plan = plan_of(scans, num_clusterers=200)
    folder = plan.folder(tmp_path / "cache")
    given = [sys.executable, "-c", FITTING, str(tmp_path), plan.source.settings.model_dump_json()]
    process = subprocess.Popen(given)
    while len(list(folder.glob("clusterer_*"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    before = written(folder)
    assert 3 <= len(before) < 200
    went_on = fit_clusterers(plan, tmp_path / "cache", workers=0)
    assert before.items() <= written(folder).items()
    whole = fit_clusterers(plan, tmp_path / "whole", workers=0)
    assert torch.equal(went_on._centres, whole._centres)
    assert [path.name for path in folder.glob(".partial-*")] == []

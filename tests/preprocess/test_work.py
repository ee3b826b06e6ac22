import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from voxelseg.data.dataset import Case
from voxelseg.data.labels import NO_LABELS
from voxelseg.errors import DataError, VoxelsegError
from voxelseg.plan import make_plan
from voxelseg.plan.plan import read_plan
from voxelseg.preprocess.work import WorkFolder


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path / "work")


def measured(work, dataset) -> bool:
    """Whether asking for the fingerprint measured the scans."""
    seen: list[int] = []
    work.fingerprint(dataset, workers=1, progress=seen.append)
    return bool(seen)


def test_scans_are_measured_once(work, write_set):
    dataset = write_set("a", "b")
    assert measured(work, dataset)
    assert not measured(work, dataset)
    os.utime(dataset.cases[0].images[0], ns=(1, 1))
    assert measured(work, dataset)
    assert not measured(work, dataset)


def test_a_plan_edited_by_hand_survives_touched_files_but_not_changed_ones(work, write_set, caplog):
    dataset = write_set("a", "b")
    plan = make_plan(work.fingerprint(dataset, workers=1)).changed(batch_size=7)
    plan.write(work.plan_path)
    os.utime(dataset.cases[0].images[0], ns=(1, 1))
    assert measured(work, dataset)
    assert work.plan().batch_size == 7
    dataset.cases[0].label.write_bytes(dataset.cases[1].label.read_bytes())
    dataset.cases[0].images[0].write_bytes(dataset.cases[1].images[0].read_bytes())
    assert measured(work, dataset)
    assert not work.plan_path.exists()
    assert read_plan(work.folder / "plan.outdated.json").batch_size == 7
    assert "the data have changed; the plan before is kept as plan.outdated.json" in caplog.text


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_lost_or_damaged_fingerprint_is_measured_again(work, write_set, content):
    dataset = write_set("a")
    first = work.fingerprint(dataset, workers=1)
    if content is None:
        work.fingerprint_path.unlink()
    else:
        work.fingerprint_path.write_text(content)
    assert work.fingerprint(dataset, workers=1) == first


def test_a_folder_belongs_to_one_data_set(work, write_set, tmp_path):
    dataset = write_set("a")
    work.fingerprint(dataset, workers=1)
    with pytest.raises(DataError, match=r"work: belongs to the data set .*data. Choose another folder"):
        work.fingerprint(dataclasses.replace(dataset, source=tmp_path / "other"), workers=1)


def test_a_folder_that_was_not_planned_says_what_to_do(work):
    with pytest.raises(DataError, match=r"Run `voxelseg plan DATA --out WORK` first"):
        work.dataset()
    work.folder.mkdir()
    (work.folder / "work.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(DataError, match=r"does not say where the data set is\. Delete it"):
        work.dataset()


def test_vanished_files_and_folders_that_cannot_be_made_are_errors(work, write_set, tmp_path):
    dataset = write_set("a")
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxelsegError, match="cannot be written"):
        WorkFolder(tmp_path / "file" / "work").fingerprint(dataset, workers=1)
    dataset.cases[0].label.unlink()
    with pytest.raises(DataError, match=r"label_0.nii.gz: cannot be read"):
        work.fingerprint(dataset, workers=1)


def test_cases_are_stored_in_the_folder(work, write_set, plan):
    stored = work.stored_cases(write_set("a"), plan, workers=1)
    assert stored["a"].folder == work.store_path(plan) / "a"


def test_trainings_with_other_plans_share_a_folder_and_keep_their_own_cases(work, write_set, plan):
    dataset = write_set("a")
    first = work.stored_cases(dataset, plan, workers=1)["a"]
    before = first.image[:]
    second = work.stored_cases(dataset, plan.changed(spacing_mm=(3.0, 3.0, 3.0)), workers=1)["a"]
    assert second.image.shape != before.shape
    np.testing.assert_array_equal(first.image[:], before)
    patch = plan.changed(patch_size=(4, 4, 4), batch_size=5)
    assert work.stored_cases(dataset, patch, workers=1)["a"].folder == first.folder


def test_other_spellings_of_a_path_measure_nothing_again(work, write_set, monkeypatch):
    dataset = write_set("a")
    assert measured(work, dataset)
    monkeypatch.chdir(dataset.root)
    case = dataset.cases[0]
    near = dataclasses.replace(case, images=(Path(case.images[0].name),), label=Path(case.label.name))
    assert not measured(work, dataclasses.replace(dataset, cases=(near,), source=Path()))


@pytest.mark.parametrize("part", ["image", "label"])
def test_voxels_beside_an_unchanged_header_are_not_taken_for_the_old_ones(work, write_set, plan, part):
    dataset = write_set("a")
    case = dataset.cases[0]
    paths = {"image": dataset.root / "scan.mhd", "label": dataset.root / "map.mhd"}
    for name, source in (("image", case.images[0]), ("label", case.label)):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(source)), str(paths[name]), useCompression=False)
    detached = dataclasses.replace(dataset, cases=(Case("a", (paths["image"],), paths["label"]),))
    stored = work.stored_cases(detached, plan, workers=1)["a"]
    assert measured(work, detached)
    before = {"image": stored.image[:], "label": stored.label[:]}
    voxels = paths[part].with_suffix(".raw")
    voxels.write_bytes(np.fromfile(voxels, {"image": "<f4", "label": "u1"}[part])[::-1].tobytes())
    assert measured(work, detached)
    again = work.stored_cases(detached, plan, workers=1)["a"]
    assert (getattr(again, part)[:] != before[part]).any()


def test_a_folder_is_for_scans_with_labels_or_without(work, write_set, tmp_path):
    dataset = write_set("a", "b")
    scans = dataclasses.replace(
        dataset, labels=NO_LABELS, cases=tuple(dataclasses.replace(case, label=None) for case in dataset.cases)
    )
    work.fingerprint(dataset, workers=1)
    with pytest.raises(DataError, match=r"work: was made from these scans with labels, and here they are used without"):
        work.fingerprint(scans, workers=1)
    other = WorkFolder(tmp_path / "other")
    assert measured(other, scans)
    assert not measured(other, scans)
    with pytest.raises(DataError, match=r"other: was made from these scans without labels.*used with\. Choose another"):
        other.fingerprint(dataset, workers=1)
    with pytest.raises(
        DataError, match=r"planned for a pre-training, without labels\. Continue with `voxelseg pretrain`"
    ):
        other.dataset()

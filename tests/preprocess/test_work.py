import json
import os

import pytest

from voxelseg.errors import DataError, VoxelsegError
from voxelseg.plan import make_plan
from voxelseg.preprocess.work import WorkFolder


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path / "work")


def measured(work, dataset) -> bool:
    """Whether asking for the fingerprint measured the scans."""
    seen: list[int] = []
    work.fingerprint(dataset.root, dataset, workers=1, progress=seen.append)
    return bool(seen)


def test_scans_are_measured_once(work, write_set):
    dataset = write_set("a", "b")
    assert measured(work, dataset)
    assert not measured(work, dataset)
    os.utime(dataset.cases[0].images[0], ns=(1, 1))
    assert measured(work, dataset)
    assert not measured(work, dataset)


def test_a_plan_edited_by_hand_survives_touched_files_but_not_changed_ones(work, write_set):
    dataset = write_set("a", "b")
    plan = make_plan(work.fingerprint(dataset.root, dataset, workers=1)).changed(batch_size=7)
    plan.write(work.plan_path)
    os.utime(dataset.cases[0].images[0], ns=(1, 1))
    assert measured(work, dataset)
    assert work.plan().batch_size == 7
    dataset.cases[0].label.write_bytes(dataset.cases[1].label.read_bytes())
    dataset.cases[0].images[0].write_bytes(dataset.cases[1].images[0].read_bytes())
    assert measured(work, dataset)
    assert not work.plan_path.exists()


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_lost_or_damaged_fingerprint_is_measured_again(work, write_set, content):
    dataset = write_set("a")
    first = work.fingerprint(dataset.root, dataset, workers=1)
    if content is None:
        work.fingerprint_path.unlink()
    else:
        work.fingerprint_path.write_text(content)
    assert work.fingerprint(dataset.root, dataset, workers=1) == first


def test_a_folder_belongs_to_one_data_set(work, write_set, tmp_path):
    dataset = write_set("a")
    work.fingerprint(dataset.root, dataset, workers=1)
    with pytest.raises(DataError, match=r"work: belongs to the data set .*data. Choose another folder"):
        work.fingerprint(tmp_path / "other", dataset, workers=1)


def test_a_folder_that_was_not_planned_says_what_to_do(work):
    with pytest.raises(DataError, match=r"Run `voxelseg plan DATA --out WORK` first"):
        work.dataset()
    work.folder.mkdir()
    (work.folder / "dataset.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(DataError, match=r"does not say where the data set is"):
        work.dataset()


def test_vanished_files_and_folders_that_cannot_be_made_are_errors(work, write_set, tmp_path):
    dataset = write_set("a")
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxelsegError, match="cannot be written"):
        WorkFolder(tmp_path / "file" / "work").fingerprint(dataset.root, dataset, workers=1)
    dataset.cases[0].label.unlink()
    with pytest.raises(DataError, match=r"label_0.nii.gz: cannot be read"):
        work.fingerprint(dataset.root, dataset, workers=1)


def test_cases_are_stored_in_the_folder(work, write_set, plan):
    stored = work.stored_cases(write_set("a"), plan, workers=1)
    assert stored["a"].folder == work.store_path / "a"

import dataclasses
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from voxelseg.data.labels import NO_LABELS, parse_labels
from voxelseg.errors import DataError, VoxelsegError, WorkerError
from voxelseg.io import read_channels, read_label
from voxelseg.preprocess import store as store_module
from voxelseg.preprocess.case import preprocess_image, preprocess_label
from voxelseg.preprocess.store import VOXELS_PER_CLASS, StoredArray, StoredCase, store_dataset


def made_at(store) -> dict[str, int]:
    """When each stored case was made: a kept one keeps its label file."""
    return {folder.name: (folder / "label.b2nd").stat().st_mtime_ns for folder in store.glob("[!.]*")}


def remade(before: dict[str, int], store) -> set[str]:
    return {name for name, when in made_at(store).items() if before.get(name) != when}


def contents(store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.suffix in (".b2nd", ".npz")
    }


def test_stored_cases_hold_what_preprocessing_gives(write_set, plan, tmp_path):
    dataset = write_set("a", "b")
    stored = store_dataset(dataset, plan, tmp_path / "store")
    assert list(stored) == ["a", "b"]
    for case in dataset.cases:
        image, placement = preprocess_image(read_channels(case.images), plan)
        target = preprocess_label(read_label(case.label), placement, dataset.labels)
        found = stored[case.id]
        assert found.shape == found.label.shape == target.shape
        np.testing.assert_array_equal(found.image[:], image)
        np.testing.assert_array_equal(found.label[:], target)
        np.testing.assert_array_equal(found.image[:, 2:5, 3:9, 1:2], image[:, 2:5, 3:9, 1:2])
        assert found.classes == (0, 1)
        assert not found.partly_labelled
        for position in found.classes:
            np.testing.assert_array_equal(found.voxels_of_class(position), np.argwhere(target == position + 1))


def test_workers_change_nothing(write_set, plan, tmp_path):
    dataset = write_set("a", "b", "c")
    store_dataset(dataset, plan, tmp_path / "one")
    store_dataset(dataset, plan, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_nothing_is_done_twice_and_progress_counts_what_is_ready(write_set, plan, tmp_path):
    dataset, store = write_set("a", "b"), tmp_path / "store"
    seen: list[int] = []
    store_dataset(dataset, plan, store, progress=seen.append)
    assert seen == [0, 1, 2]
    before = made_at(store)
    seen.clear()
    store_dataset(dataset, plan, store, progress=seen.append)
    assert seen == [2]
    assert not remade(before, store)


def test_changes_remake_exactly_the_cases_they_concern(write_set, plan, tmp_path):
    dataset, store = write_set("a", "b"), tmp_path / "store"
    store_dataset(dataset, plan, store)

    def again(data=dataset, by=plan) -> set[str]:
        before = made_at(store)
        store_dataset(data, by, store)
        return remade(before, store)

    assert again(by=plan.changed(patch_size=[16, 16, 16], mirror_axes=[1])) == set()
    assert again(by=plan.changed(spacing_mm=[2, 2, 2])) == {"a", "b"}
    renamed = dataclasses.replace(dataset, labels=parse_labels({"background": 0, "liver": 1, "kidney": 2}))
    assert again() == {"a", "b"}
    assert again(data=renamed) == {"a", "b"}
    assert again() == {"a", "b"}
    shutil.copy(dataset.cases[0].label, dataset.cases[0].label.with_name("kept.nii.gz"))
    image = dataset.cases[1].images[0]
    image.write_bytes(dataset.cases[0].images[0].read_bytes())
    dataset.cases[1].label.write_bytes(dataset.cases[0].label.read_bytes())
    assert again() == {"b"}


def test_touched_files_with_the_same_contents_remake_nothing(write_set, plan, tmp_path, monkeypatch):
    dataset, store = write_set("a", "b"), tmp_path / "store"
    store_dataset(dataset, plan, store)
    before = made_at(store)
    os.utime(dataset.cases[0].images[0], ns=(1, 1))
    store_dataset(dataset, plan, store)
    assert not remade(before, store)
    # and the new time is known from now on
    monkeypatch.setattr(store_module, "sha256_of_file", lambda path: pytest.fail(f"{path} hashed again"))
    store_dataset(dataset, plan, store)


def test_a_stop_keeps_finished_cases_and_leaves_no_half_one(write_set, plan, tmp_path, monkeypatch):
    dataset, store = write_set("a", "b", "c"), tmp_path / "store"
    original = store_module._write_array

    def interrupted(path, array):
        if "b" in {folder.name for folder in store.iterdir()} and path.name == "label.b2nd":
            raise KeyboardInterrupt
        original(path, array)

    monkeypatch.setattr(store_module, "_write_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store_dataset(dataset, plan, store)
    assert sorted(folder.name for folder in store.glob("[!.]*")) == ["a", "b"]
    before = made_at(store)
    monkeypatch.setattr(store_module, "_write_array", original)
    store_dataset(dataset, plan, store)
    assert remade(before, store) == {"c"}


def test_kill_9_leaves_nothing_that_disturbs_the_next_run(write_set, plan, tmp_path):
    dataset, store = write_set(*"abcdefgh"), tmp_path / "store"
    (tmp_path / "job").write_bytes(pickle.dumps((dataset, plan, store)))
    script = (
        "import pickle, sys, time; from voxelseg.preprocess import store as s; w = s._write_array\n"
        "s._write_array = lambda path, array: (w(path, array), time.sleep(0.1))\n"  # stopped inside a case
        "s.store_dataset(*pickle.load(open(sys.argv[1], 'rb')))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "job")])
    while not (store / "b").is_dir():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.15)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(store.glob(".partial-*"))
    before = made_at(store)
    stored = store_dataset(dataset, plan, store)
    assert not list(store.glob(".partial-*"))
    assert {"a", "b"} <= before.keys()
    assert remade(before, store) == set("abcdefgh") - before.keys()
    assert all(case.image[:].shape[1:] == case.shape for case in stored.values())


@pytest.mark.parametrize("damage", ["missing", "truncated", "no description", "odd description", "odd input"])
def test_an_incomplete_case_is_made_again(write_set, plan, tmp_path, damage):
    dataset, store = write_set("a", "b"), tmp_path / "store"
    store_dataset(dataset, plan, store)
    before = made_at(store)
    image, description = store / "a" / "image.b2nd", store / "a" / "case.json"
    if damage == "missing":
        image.unlink()
    elif damage == "truncated":
        image.write_bytes(image.read_bytes()[:100])
    elif damage == "no description":
        description.unlink()
    elif damage == "odd description":
        description.write_text("[1, 2]")
    else:
        stored = json.loads(description.read_text())
        del stored["inputs"][0]["size"]
        description.write_text(json.dumps(stored))
    stored = store_dataset(dataset, plan, store)
    assert remade(before, store) == {"a"}
    assert stored["a"].image[:].shape[1:] == stored["a"].shape


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, None])
def test_damage_met_while_reading_names_the_file_and_the_remedy(write_set, plan, tmp_path, content):
    case = store_dataset(write_set("a"), plan, tmp_path / "store")["a"]
    whole = (case.folder / "image.b2nd").read_bytes()
    (case.folder / "image.b2nd").write_bytes(whole[: len(whole) // 2] if content is None else content)
    (case.folder / "foreground.npz").write_bytes(b"")
    fresh = StoredCase("a", case.folder)
    with pytest.raises(DataError, match=r"image.b2nd: damaged or missing .*run the same command again"):
        fresh.image[:, :2, :2, :2]
    with pytest.raises(DataError, match=r"foreground.npz: damaged or missing"):
        fresh.voxels_of_class(0)
    with pytest.raises(DataError, match=r"store/a: damaged or missing"):
        _ = fresh.classes
    with pytest.raises(DataError, match=r"nowhere.b2nd: damaged or missing"):
        _ = StoredArray(tmp_path / "nowhere.b2nd").shape


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(write_set, plan, tmp_path):
    dataset, store = write_set("a"), tmp_path / "store"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(VoxelsegError, match=r"store/a: cannot be written .*free disk space"):
            store_dataset(dataset, plan, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(store.glob("[!.]*")) == list(store.glob(".partial-*")) == []
    store_dataset(dataset, plan, store)


def test_a_store_that_cannot_be_made_is_an_error(write_set, plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxelsegError, match="cannot be written"):
        store_dataset(write_set("a"), plan, tmp_path / "file" / "store")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_write_permission_is_an_error(write_set, plan, tmp_path):
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(VoxelsegError, match="Permission denied"):
        store_dataset(write_set("a"), plan, tmp_path / "store")


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_cases_are_listed_together_and_the_good_ones_are_made(write_set, plan, tmp_path, workers):
    dataset = write_set("a", "b", "c", "d", "e")
    shutil.copy(dataset.cases[0].label, dataset.cases[1].label)  # one slice fewer than its image
    dataset.cases[2].images[0].write_bytes(b"no scan")
    dataset.cases[3].images[0].unlink()
    with pytest.raises(DataError) as caught:
        store_dataset(dataset, plan, tmp_path / "store", workers=workers)
    message = str(caught.value)
    assert message.startswith("3 of 5 cases could not be preprocessed:")
    assert "label_1.nii.gz: not on the grid of its scan: shape (9, 10, 12) against (8, 10, 12)" in message
    assert "image_2.nii.gz" in message
    assert "image_3.nii.gz: cannot be read (No such file or directory)" in message
    assert sorted(folder.name for folder in (tmp_path / "store").glob("[!.]*")) == ["a", "e"]


def test_label_values_outside_the_description_are_an_error(write_set, plan, tmp_path):
    dataset = write_set("a", labels=parse_labels({"background": 0, "liver": 1}))
    with pytest.raises(DataError, match=r"label_0.nii.gz: label values \[2\] in 24 voxels .*known: \[0, 1\]"):
        store_dataset(dataset, plan, tmp_path / "store")


def test_a_case_without_label_and_one_with_wrong_channels_are_errors(write_set, plan, tmp_path):
    dataset = write_set("a")
    unlabelled = dataclasses.replace(dataset, cases=(dataclasses.replace(dataset.cases[0], label=None),))
    with pytest.raises(DataError, match="case a: has no label map"):
        store_dataset(unlabelled, plan, tmp_path / "store")
    two = plan.changed(channels=["T1", "T2"], normalization=[{"kind": "zscore"}] * 2)
    with pytest.raises(DataError, match=r"case a: the scan has 1 channel\(s\), the plan expects 2"):
        store_dataset(dataset, two, tmp_path / "store")


def die(*args: object, **kwargs: object) -> None:
    os._exit(1)


def test_a_worker_that_dies_names_its_cases(write_set, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_ensure_stored", die)
    with pytest.raises(WorkerError, match=r"In work were: case a, case b, case c"):
        store_dataset(write_set("a", "b", "c"), plan, tmp_path / "store", workers=2)


def test_ids_may_hold_odd_characters(write_set, plan, tmp_path):
    names = ("Bjørn Ødegård #1", "患者 (2)", "a.b;c&d='e'", "-rf")
    stored = store_dataset(write_set(*names), plan, tmp_path / "store")
    assert {name: stored[name].folder.name for name in names} == dict(zip(names, names, strict=True))
    before = made_at(tmp_path / "store")
    store_dataset(write_set(*names), plan, tmp_path / "store")
    assert not remade(before, tmp_path / "store")


def test_an_id_too_long_for_a_folder_is_an_error(write_set, plan, tmp_path):
    with pytest.raises(VoxelsegError, match="cannot be written"):
        store_dataset(write_set("x" * 300), plan, tmp_path / "store")


def test_regions_and_ignore_are_kept_for_drawing(write_set, plan, tmp_path):
    scheme = parse_labels({"background": 0, "organ": [1, 2], "file": 2}, regions_class_order=[1, 2])
    case = store_dataset(write_set("a", labels=scheme), plan, tmp_path / "one")["a"]
    target = case.label[:]
    assert case.classes == (0, 1)
    np.testing.assert_array_equal(case.voxels_of_class(0), np.argwhere(target > 0))
    np.testing.assert_array_equal(case.voxels_of_class(1), np.argwhere(target == 2))
    partly = parse_labels({"background": 0, "liver": 1, "ignore": 2})
    case = store_dataset(write_set("a", labels=partly), plan, tmp_path / "two")["a"]
    target = case.label[:]
    assert case.classes == (0,)
    assert case.partly_labelled
    np.testing.assert_array_equal(case.labelled_voxels(), np.argwhere(target >= 0))


def test_at_most_ten_thousand_voxels_of_a_class_are_kept():
    target = np.zeros((30, 30, 30), np.int16)
    target[:, :, 5:] = 1
    image = np.zeros((1, 30, 30, 30), np.float32)
    drawn = store_module._sampling_voxels(image, target, parse_labels({"background": 0, "liver": 1}))
    assert drawn["0"].shape == (VOXELS_PER_CLASS, 3)
    assert len(np.unique(drawn["0"], axis=0)) == VOXELS_PER_CLASS
    assert (target[tuple(drawn["0"].T)] == 1).all()
    assert drawn["0"].mean(0) == pytest.approx([14.5, 14.5, 17], abs=0.5)


def test_voxels_of_any_class_and_of_the_background_are_kept(tmp_path):
    target = np.zeros((3, 4, 5), np.int16)
    target[0, 1, 2], target[2, 3, 4], target[1] = 1, 2, -1
    image = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    image = np.concatenate([-image, image - 50])  # the brighter channel counts
    labels = parse_labels({"background": 0, "liver": 1, "spleen": 2, "ignore": 3})
    store_module._write_case(tmp_path / "a", image, target, {"id": "a", "key": "", "inputs": []}, labels)
    case = StoredCase("a", tmp_path / "a")
    assert case.classes == (0, 1)
    assert case.foreground_voxels().tolist() == [[0, 1, 2], [2, 3, 4]]
    np.testing.assert_array_equal(case.background_voxels(), np.argwhere(target == 0))
    # above 2: only the last plane's voxels 53 to 58; 59 is the spleen
    assert case.background_voxels(above=2.0).tolist() == [[2, 2, w] for w in (3, 4)] + [[2, 3, w] for w in range(4)]


def test_a_case_without_foreground_has_no_voxels_of_any_class(tmp_path):
    empty = np.zeros((3, 4, 5), np.int16)
    store_module._write_case(
        tmp_path / "a",
        empty[None].astype(np.float32),
        empty,
        {"id": "a", "key": "", "inputs": []},
        parse_labels({"background": 0, "liver": 1}),
    )
    case = StoredCase("a", tmp_path / "a")
    assert case.foreground_voxels().shape == (0, 3)
    assert case.background_voxels().shape == (60, 3)
    assert case.background_voxels(above=0.0).shape == (0, 3)


def test_drawn_voxels_are_those_of_a_whole_list_of_them():
    mask = np.random.default_rng(0).random((30, 40, 50)) < 0.4
    mask[[0, 7, 29]] = False
    drawn = store_module._drawn(mask, np.random.default_rng(1))
    voxels = np.argwhere(mask)
    expected = np.sort(np.random.default_rng(1).choice(len(voxels), VOXELS_PER_CLASS, replace=False))
    np.testing.assert_array_equal(drawn, voxels[expected])


def test_cases_hold_no_files_open_and_travel_to_workers(write_set, plan, tmp_path):
    case = store_dataset(write_set("a"), plan, tmp_path / "store")["a"]
    before = len(list(Path("/proc/self/fd").iterdir()))
    values = [case.image[:, :2] for _ in range(5)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    copy = pickle.loads(pickle.dumps(case))
    np.testing.assert_array_equal(copy.image[:, :2], values[0])


def test_real_sets_are_stored(shared_data, tmp_path):
    from voxelseg.data import read_dataset
    from voxelseg.plan import compute_fingerprint, make_plan

    for name in ("Dataset027_ACDC", "Dataset015_BraTS"):
        dataset = read_dataset(shared_data / name)
        dataset = dataclasses.replace(dataset, cases=dataset.cases[:2])
        found = store_dataset(dataset, make_plan(compute_fingerprint(dataset)), tmp_path / name)
        for case in found.values():
            assert case.image[:, :4, :8, :8].shape == (len(dataset.channels), 4, 8, 8)
            assert set(case.classes) == set(range(len(dataset.labels.classes)))


def test_scans_without_labels_are_stored_as_images_only(write_set, plan, tmp_path):
    dataset, store = write_set("a"), tmp_path / "store"
    labelled = store_dataset(dataset, plan, tmp_path / "labelled")["a"]
    scans = dataclasses.replace(
        dataset, labels=NO_LABELS, cases=tuple(dataclasses.replace(case, label=None) for case in dataset.cases)
    )
    dataset.cases[0].label.unlink()
    case = store_dataset(scans, plan, store)["a"]
    np.testing.assert_array_equal(case.image[:], labelled.image[:])
    assert (case.shape, case.classes, case.partly_labelled) == (labelled.shape, (), False)
    assert {path.name for path in case.folder.iterdir()} == {"image.b2nd", "case.json"}
    before = (case.folder / "image.b2nd").stat().st_mtime_ns
    store_dataset(scans, plan, store)
    assert (case.folder / "image.b2nd").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="case a: has no label map"):
        store_dataset(dataclasses.replace(scans, labels=dataset.labels), plan, store)

import json
import os
import shutil

import pytest
from nibabel import load, save

from voxelseg.benchmark.inputs import contents, inputs_of, unchanged_inputs
from voxelseg.data import read_dataset
from voxelseg.errors import ConfigError
from voxelseg.files import write_json

MEANING = '"1": "ball"'


@pytest.fixture
def data(tiny_msd, tmp_path):
    """A copy of the tiny data set that may be changed."""
    shutil.copytree(tiny_msd, tmp_path / "data")
    return tmp_path / "data"


def test_what_the_trainings_had_may_be_touched_but_not_changed(data, tmp_path):
    out = tmp_path / "out"
    found = unchanged_inputs(out, read_dataset(data))
    write_json(out / "inputs.json", found)
    label = data / "labelsTr" / "tiny_2.nii.gz"
    os.utime(label, (1, 1))
    touched = unchanged_inputs(out, read_dataset(data))
    assert contents(touched) == contents(found)
    assert touched["cases"]["tiny_2"]["files"] != found["cases"]["tiny_2"]["files"]
    whole = label.read_bytes()
    image = load(label)
    array = image.get_fdata()
    array[array == 2] = 1
    save(type(image)(array.astype("uint8"), image.affine, image.header), label)
    with pytest.raises(
        ConfigError, match=r"data: is not what the trainings in .*out have had \(the scans or label maps of tiny_2"
    ):
        unchanged_inputs(out, read_dataset(data))
    label.write_bytes(whole)
    assert contents(unchanged_inputs(out, read_dataset(data))) == contents(found)


def test_labels_that_mean_something_else_are_a_change(data, tmp_path):
    write_json(tmp_path / "out" / "inputs.json", unchanged_inputs(tmp_path / "out", read_dataset(data)))
    description = data / "dataset.json"
    assert MEANING in description.read_text()
    description.write_text(description.read_text().replace(MEANING, '"1": "rod"').replace('"2": "rod"', '"2": "ball"'))
    with pytest.raises(ConfigError, match=r"\(the meaning of the labels changed\)"):
        unchanged_inputs(tmp_path / "out", read_dataset(data))


def test_nothing_is_compared_with_a_folder_that_notes_nothing_or_other_data(data, tmp_path):
    dataset = read_dataset(data)
    assert set(unchanged_inputs(tmp_path / "earlier", dataset)["cases"]) == {case.id for case in dataset.cases}
    other = inputs_of(dataset, {}) | {"data": "elsewhere", "cases": {"tiny_1": {"files": [], "sha256": ["x"]}}}
    write_json(tmp_path / "out" / "inputs.json", other)
    assert unchanged_inputs(tmp_path / "out", dataset)["data"] == str(data.absolute())


def test_files_in_a_known_state_are_not_read_again(data):
    dataset = read_dataset(data)
    known = json.loads(json.dumps(inputs_of(dataset, {})))
    known["cases"]["tiny_0"]["sha256"] = ["what was noted", "of these"]
    assert inputs_of(dataset, known)["cases"]["tiny_0"]["sha256"] == ["what was noted", "of these"]

"""What a data set holds, told by the contents of its files: what is made from other contents is not comparable.

OUT/inputs.json has it for the trainings of a benchmark. Sizes and times of the files stand beside their checksums, so
that only files which somebody touched are read again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.wording import some
from voxelseg.errors import ConfigError, DataError
from voxelseg.files import read_json, sha256_of_file
from voxelseg.preprocess.store import input_states

INPUTS_FILE = "inputs.json"


def inputs_of(dataset: Dataset, known: Mapping[str, Any]) -> dict[str, Any]:
    """JSON form: where the data are, what their labels mean, and each case's files with their checksums.

    `known` is an earlier form or nothing: checksums of files whose size and time have stayed are taken from it.
    DataError if a file cannot be read.
    """
    stored = known.get("cases", {})
    return {
        "data": str(dataset.source.absolute()),
        "labels": dataset.labels.to_dict(),
        "cases": {case.id: _files_of(case, stored.get(case.id, {})) for case in dataset.cases},
    }


def _files_of(case: Case, known: Mapping[str, Any]) -> dict[str, Any]:
    states = input_states(case)
    if known.get("files") == states:
        return dict(known)
    return {"files": states, "sha256": [_checksum(Path(one["path"])) for one in states]}


def _checksum(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Restore the file.") from error


def contents(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The part of what `inputs_of` gives that trainings depend on: labels, and the checksums by case."""
    cases = inputs.get("cases", {})
    return {"labels": inputs.get("labels"), "cases": {case: files["sha256"] for case, files in cases.items()}}


def unchanged_inputs(folder: Path, dataset: Dataset) -> dict[str, Any]:
    """What is to be noted of `dataset` for the benchmark in `folder`, once that is known to be of this data set.

    Nothing is compared in a folder in which nothing is noted yet, or other data are. ConfigError if cases hold other
    scans or label maps than its trainings have had, or labels mean something else.
    """
    path = folder / INPUTS_FILE
    known = read_json(path, remedy="Choose another --out.") if path.is_file() else {}
    found = inputs_of(dataset, known)
    if known.get("data") != found["data"]:
        return found
    before, after = contents(known), contents(found)
    cases = [case for case, hashes in before["cases"].items() if after["cases"].get(case, hashes) != hashes]
    differing = [f"the scans or label maps of {some(cases)}"] if cases else []
    differing += ["the meaning of the labels"] if before["labels"] != after["labels"] else []
    if differing:
        raise ConfigError(
            f"{dataset.source}: is not what the trainings in {folder} have had ({' and '.join(differing)} changed), so "
            "that no other training can be compared with them. Put the original data back, or choose another --out."
        )
    return found

"""What the report on a pre-training says of the probe of its features, if there was one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelseg.data.wording import counted
from voxelseg.errors import DataError
from voxelseg.files import read_json, sha256_of_file

PROBE_FILE = "probe.json"
_REMEDY = "Delete it, or run `voxelseg probe` again."


@dataclass(frozen=True)
class ProbePart:
    """Sentences and table."""

    headline: tuple[str, str, str]
    """Title, value and small print of the big number."""
    sentence: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Of each classifier: accuracy pre-trained, fresh, their difference, then the recall of each class."""
    notes: tuple[str, ...]


def probe_part(folder: Path, weights: Path) -> ProbePart | None:
    """What PRE/probe.json says; None if there is none or it is of other `weights`, DataError if it is damaged."""
    path = folder / PROBE_FILE
    if not path.is_file() or not weights.is_file():
        return None
    found = read_json(path, remedy=_REMEDY)
    try:
        return _part(found) if found["weights_sha256"] == sha256_of_file(weights) else None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: no record of a probe ({error!r}). {_REMEDY}") from error


def _part(found: Mapping[str, Any]) -> ProbePart:
    probes = found["probes"]
    classes = list(next(iter(probes.values()))["recall"]["pre-trained"])
    linear = probes["linear"]
    sentence = (
        f"Classifiers of the frozen features of single voxels: fitted on {counted(found['voxels_fitted'], 'voxel')} of "
        f"{counted(found['cases_fitted'], 'case')} of {found['data']}, scored on {found['cases_scored']} cases of "
        f"other patients, with these weights and with fresh ones. Guessing would reach {found['chance']:.3f}. Accuracy "
        "is the mean over the classes of the share of voxels told rightly."
    )
    return ProbePart(
        headline=(
            "Probe accuracy",
            f"{linear['accuracy']['pre-trained']:.3f}",
            f"linear, on single voxels; fresh weights {linear['accuracy']['fresh']:.3f}",
        ),
        sentence=sentence,
        titles=("Classifier", "Pre-trained", "Fresh", "Difference [95 %]", *classes),
        rows=tuple(_row(kind, one, classes) for kind, one in probes.items()),
        notes=tuple(found["notes"]),
    )


def _row(kind: str, one: Mapping[str, Any], classes: list[str]) -> tuple[str, ...]:
    accuracy, difference, recall = one["accuracy"], one["difference"], one["recall"]["pre-trained"]
    ends = ", ".join(_number(difference[end], "+.3f") for end in ("low", "high"))
    return (
        kind.capitalize(),
        f"{accuracy['pre-trained']:.3f}",
        f"{accuracy['fresh']:.3f}",
        f"{difference['mean']:+.3f} [{ends}]",
        *(_number(recall[name], ".3f") for name in classes),
    )


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:{form}}"

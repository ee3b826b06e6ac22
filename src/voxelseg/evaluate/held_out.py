"""What the folds of a training held out: their folders, and where the files of each scored case lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from voxelseg.data.dataset import Case
from voxelseg.errors import DataError
from voxelseg.files import read_json, write_json

VALIDATION_FOLDER = "validation"
PAIRS_FILE = "pairs.json"


@dataclass(frozen=True)
class CaseFiles:
    """Where the scan, the reference and the prediction of a scored case lie."""

    images: tuple[Path, ...]
    """None of them if nobody said where the scan is."""
    label: Path
    prediction: Path
    patient: str = ""
    """Empty if nobody said whose it is."""


def fold_folders(run: Path) -> list[Path]:
    """Folders of the folds that were begun, by their numbers; folds without a number come last."""
    return sorted((path for path in run.glob("fold_*") if path.is_dir()), key=_fold_order)


def fold_name(folder: Path) -> str:
    """Such as "0" or "all"."""
    return folder.name.removeprefix("fold_")


def read_pairs(path: Path) -> Mapping[str, CaseFiles]:
    """Case -> its files, from the pairs.json that a validation writes; nothing if there is none.

    Paths are seen from the file's folder, or else from here; predictions are found after the folder was moved, too.
    DataError for a damaged file.
    """
    if not path.is_file():
        return {}
    try:
        return {
            entry["case"]: CaseFiles(
                images=tuple(_located(Path(image), path.parent) for image in entry["images"]),
                label=_located(Path(entry["label"]), path.parent),
                prediction=_prediction(Path(entry["prediction"]), path.parent),
                patient=str(entry.get("patient", "")),
            )
            for entry in read_json(path)
        }
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected a list of objects with case, images, label and prediction ({error!r}). "
            "Remove the file to get the report without pictures, or run the validation again."
        ) from error


def write_pairs(path: Path, cases: Iterable[Case], *, file_ending: str) -> None:
    """Write what `read_pairs` reads: the files of the labelled ones of `cases`; predictions lie beside `path`."""
    entries = [
        {
            "case": case.id,
            "patient": case.patient,
            "images": [str(image.absolute()) for image in case.images],
            "label": str(case.label.absolute()),
            "prediction": f"{case.id}{file_ending}",
        }
        for case in cases
        if case.label is not None
    ]
    write_json(path, entries)


def _fold_order(path: Path) -> tuple[int, str]:
    name = fold_name(path)
    return (int(name) if name.isdigit() else 10**9, name)


def _located(path: Path, folder: Path) -> Path:
    """`path` seen from `folder`, or else from here."""
    return path if path.exists() and not (folder / path).exists() else folder / path


def _prediction(path: Path, folder: Path) -> Path:
    """The same; after the run was moved, the file of that name in `folder`."""
    located = _located(path, folder)
    return located if located.exists() else folder / path.name

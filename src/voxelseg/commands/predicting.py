"""The command `predict`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from voxelseg.checkpoint import MODEL_FILE, load_checkpoint
from voxelseg.commands.arguments import choose_device, parse_folds
from voxelseg.commands.display import PathLike, counting_bar, say
from voxelseg.data.dataset import Case
from voxelseg.errors import ConfigError, DataError
from voxelseg.predict.folder import PredictionFolder, predict_cases
from voxelseg.predict.inputs import find_cases
from voxelseg.predict.predictor import Predictor

_log = logging.getLogger(__name__)


def predict(
    run: PathLike,
    input: PathLike,  # noqa: A002 - named like the option
    output: PathLike,
    *,
    fold: str | int | None = None,
    probabilities: bool = False,
    tta: bool = False,
    overlap: float = 0.5,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Path]:
    """Label maps of a scan, a folder of scans or a data set, on each scan's own grid; returns their paths by case.

    `run` is a run's folder, whose trained folds (or those in `fold`, "0,1") are averaged, or one model file.
    `probabilities` adds a 4D file per case. `tta` averages over mirrored versions where that is harmless. Label maps
    that are there already, made by the same models and options from the same scans, are kept.
    """
    on = choose_device(device)
    checkpoints = [load_checkpoint(path) for path in _model_files(Path(run), fold)]
    cases = find_cases(Path(input), channels=checkpoints[0].plan.channels)
    _refuse_to_mix(Path(output), cases)
    mirrored = tta and bool(checkpoints[0].plan.mirror_axes)
    if tta and not mirrored:
        _log.warning("%s: nothing is averaged, since the plan mirrors along no axis.", run)
    folder = PredictionFolder(
        Path(output),
        settings={"models": [one.fingerprint() for one in checkpoints], "tta": mirrored, "overlap": overlap},
        file_ending=checkpoints[0].file_ending,
        probabilities=probabilities,
    )
    predictor = Predictor(checkpoints, device=on, overlap=overlap, tta=mirrored)
    with counting_bar(console, "predicting", total=len(cases)) as update:
        paths = predict_cases(predictor, cases, folder, progress=lambda done, case: update(done, note=case))
    say(
        console,
        f"{output} holds the label maps of {_count(len(paths), 'scan')} by {_count(len(checkpoints), 'model')}.",
        ["evaluate", "--prediction", output, "--reference", "DIR", "--out", "DIR"],
    )
    return paths


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _refuse_to_mix(output: Path, cases: Sequence[Case]) -> None:
    """ConfigError if the scans lie in the output folder: label maps would replace them, or be taken for scans."""
    here = output.resolve()
    if any(file.resolve().parent == here or file.absolute().parent == here for case in cases for file in case.images):
        raise ConfigError(f"{output}: holds the scans themselves. Choose another --output.")


def _model_files(run: Path, fold: str | int | None) -> list[Path]:
    if run.is_file():
        if fold is not None:
            raise ConfigError(f"{run}: is one model file, so there are no folds to choose from. Leave out --fold.")
        return [run]
    if not run.is_dir():
        raise DataError(f"{run}: not found. Name the folder of a run (--out of `voxelseg train`) or a model file.")
    found = {
        int(number): path
        for path in run.glob(f"fold_*/{MODEL_FILE}")
        if (number := path.parent.name.removeprefix("fold_")).isdecimal()
    }
    if not found:
        raise DataError(f"{run}: holds no trained model. Run `voxelseg train` to its end first.")
    wanted = None if fold is None else parse_folds(fold)
    if wanted is None:
        wanted = sorted(found)
    missing = [number for number in wanted if number not in found]
    if missing:
        raise ConfigError(f"{run}: fold {missing[0]} is not trained; trained are {', '.join(map(str, sorted(found)))}.")
    return [found[number] for number in wanted]

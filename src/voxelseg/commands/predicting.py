"""The command `predict`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from voxelseg.checkpoint import BEST_FILE, MODEL_FILE, load_checkpoint
from voxelseg.commands.arguments import choose_device, parse_folds
from voxelseg.commands.display import PathLike, counting_bar, say
from voxelseg.data.dataset import Case
from voxelseg.data.wording import counted
from voxelseg.errors import CheckpointError, ConfigError, DataError
from voxelseg.files import read_json
from voxelseg.plan.plan import describe
from voxelseg.predict.folder import PredictionFolder, predict_cases
from voxelseg.predict.inputs import find_cases
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.predict.predictor import Predictor, prediction_settings
from voxelseg.train.config import PredictConfig
from voxelseg.train.run import RUN_FILE

_log = logging.getLogger(__name__)


def predict(
    run: PathLike,
    input: PathLike,  # noqa: A002 - named like the option
    output: PathLike,
    *,
    fold: str | int | None = None,
    probabilities: bool = False,
    checkpoint: str | None = None,
    tta: bool | None = None,
    overlap: float | None = None,
    postprocess: bool = True,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Path]:
    """Label maps of a scan, a folder of scans or a data set, on each scan's own grid; returns their paths by case.

    `run` is a run's folder, whose trained folds (or those in `fold`, "0,1") are averaged, or one model file.
    `probabilities` adds a 4D file per case. `checkpoint`, the weights of the "last" or the "best" epoch, `tta`, which
    averages over mirrored versions where that is harmless, and `overlap` are by default what the run's held-out cases
    were predicted with. `postprocess`: whether label maps are postprocessed as the cross-validation chose. Label maps
    that are there already, made by the same models and options from the same scans, are kept.
    """
    on = choose_device(device)
    record = Path(run) / RUN_FILE
    config = _predict_config(read_json(record) if record.is_file() else None)
    checkpoints = [load_checkpoint(path) for path in _model_files(Path(run), fold, checkpoint, config)]
    for one in checkpoints:
        one.check_trained()
    if Path(run).is_file():
        config = _predict_config(checkpoints[0].provenance.get("run"))
    averaging = {**config.averaging, **({} if tta is None else {"tta": tta})}
    averaging |= {} if overlap is None else {"overlap": overlap}
    cases = find_cases(Path(input), channels=checkpoints[0].plan.channels)
    _refuse_to_mix(Path(output), cases)
    if averaging["tta"] and not checkpoints[0].plan.mirror_axes:
        _log.warning("%s: nothing is mirrored, since the plan mirrors along no axis.", run)
        averaging["tta"] = False
    folder = PredictionFolder(
        Path(output),
        settings=prediction_settings(checkpoints, averaging, postprocess=postprocess),
        file_ending=checkpoints[0].file_ending,
        probabilities=probabilities,
    )
    predictor = Predictor(checkpoints, device=on, **averaging, postprocess=postprocess)
    del checkpoints  # the networks have copies of the weights
    with counting_bar(console, "predicting", total=len(cases)) as update:
        paths = predict_cases(predictor, cases, folder, progress=lambda done, case: update(done, note=case))
    say(
        console,
        f"{output} holds the label maps of {counted(len(paths), 'scan')} by {counted(len(predictor.networks), 'model')}"
        f"{_in_words(predictor.postprocessing)}.",
        ["evaluate", "--prediction", output, "--reference", "DIR", "--out", "DIR"],
    )
    return paths


def _predict_config(record: Any) -> PredictConfig:
    """How the run of a record predicted its held-out cases; the defaults where no record, or another version, says."""
    found = record.get("config") if isinstance(record, Mapping) else None
    section = found.get("predict") if isinstance(found, Mapping) else None
    known = PredictConfig.model_fields.keys()
    try:
        return PredictConfig.model_validate({key: value for key, value in (section or {}).items() if key in known})
    except ValidationError as error:
        raise CheckpointError(f"the run's record has impossible settings of `predict`: {describe(error)}.") from error


def _in_words(postprocessing: Postprocessing) -> str:
    if not postprocessing:
        return ""
    together = ["all classes together"] if postprocessing.foreground else []
    return f", only the largest component kept of {', '.join([*together, *postprocessing.classes])}"


def _refuse_to_mix(output: Path, cases: Sequence[Case]) -> None:
    """ConfigError if the scans lie in the output folder: label maps would replace them, or be taken for scans."""
    here = output.resolve()
    if any(file.resolve().parent == here or file.absolute().parent == here for case in cases for file in case.images):
        raise ConfigError(f"{output}: holds the scans themselves. Choose another --output.")


def _model_files(run: Path, fold: str | int | None, checkpoint: str | None, config: PredictConfig) -> list[Path]:
    """The model files of the wanted folds of a run, with the weights that are wanted, or else its `config` says."""
    if checkpoint not in (None, "last", "best"):
        raise ConfigError(f"checkpoint {checkpoint!r}: expected last or best.")
    if run.is_file():
        for option, value in (("fold", fold), ("checkpoint", checkpoint)):
            if value is not None:
                raise ConfigError(f"{run}: is one model file, and there are none to choose from. Leave out --{option}.")
        return [run]
    if not run.is_dir():
        raise DataError(f"{run}: not found. Name the folder of a run (--out of `voxelseg train`) or a model file.")
    found = {
        int(number): path
        for path in run.glob(f"fold_*/{MODEL_FILE}")
        if (number := path.parent.name.removeprefix("fold_")).isdecimal()
    }
    if not found and (run / MODEL_FILE).is_file():
        load_checkpoint(run / MODEL_FILE).check_trained()
    if not found:
        raise DataError(f"{run}: holds no trained model. Run `voxelseg train` to its end first.")
    wanted = None if fold is None else parse_folds(fold)
    if wanted is None:
        wanted = sorted(found)
    missing = [number for number in wanted if number not in found]
    if missing:
        raise ConfigError(f"{run}: fold {missing[0]} is not trained; trained are {', '.join(map(str, sorted(found)))}.")
    name = BEST_FILE if (checkpoint or config.checkpoint) == "best" else MODEL_FILE
    files = [found[number].with_name(name) for number in wanted]
    lost = [file for file in files if not file.is_file()]
    if lost:
        raise ConfigError(f"{lost[0]}: not there: its training kept no best weights. Use --checkpoint last.")
    return files

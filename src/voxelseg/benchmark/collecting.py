"""What the trainings of a benchmark left, as contestants of a comparison."""

from collections.abc import Mapping
from dataclasses import replace

from voxelseg.benchmark.design import Cell, Design
from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.nnunet import TRAINING_FILE
from voxelseg.compare.contestants import Contestant
from voxelseg.compare.cost import Cost
from voxelseg.compare.sources import COST_FILE, RUN_FILE, mean_cost
from voxelseg.data.labels import LabelScheme
from voxelseg.evaluate.held_out import PAIRS_FILE, VALIDATION_FOLDER, CaseFiles, read_pairs
from voxelseg.evaluate.pooling import pool
from voxelseg.files import read_json, write_json
from voxelseg.train.finished import FinishedFold


def collect(
    design: Design,
    faults: Mapping[str, str],
    costs: Mapping[str, Cost],
    *,
    labels: LabelScheme | None = None,
    channel: str = "",
) -> list[Contestant]:
    """All contestants, as far as their trainings are finished; `faults` are by the names of trainings.

    A seed counts when all its folds are finished; what is missing is said in the contestant's `fault`. `labels` and
    `channel` are what pictures of the data need: its classes and the name of its first channel.
    """
    found = (_contestant(design, entrant, faults, costs.get(entrant.name, Cost())) for entrant in design.entrants)
    return [replace(one, labels=labels, channel=channel) for one in found]


def keep_costs(design: Design, costs: Mapping[str, Cost]) -> None:
    """Put what was measured of each network beside its trainings, where `voxelseg compare` looks for it."""
    for cell in design.cells:
        folder = design.cell_folder(cell)
        if cell.entrant.name in costs and (folder / RUN_FILE).is_file():
            write_json(folder / COST_FILE, costs[cell.entrant.name].to_dict())


def _contestant(design: Design, entrant: Entrant, faults: Mapping[str, str], cost: Cost) -> Contestant:
    found = {seed: {fold: design.outcome(Cell(entrant, fold, seed)) for fold in design.folds} for seed in design.seeds}
    whole = {
        seed: {str(fold): outcome for fold, outcome in folds.items() if outcome is not None}
        for seed, folds in found.items()
        if None not in folds.values()
    }
    pooled = {seed: pool({fold: one.scores for fold, one in folds.items()}) for seed, folds in whole.items()}
    missing = [Cell(entrant, fold, seed) for seed, folds in found.items() for fold in folds if folds[fold] is None]
    scores = {str(seed): scores for seed, (scores, _) in pooled.items()}
    files: dict[str, CaseFiles] = {}
    origins: dict[str, str] = {}
    for seed, (_, origin) in list(pooled.items())[:1]:
        files = _files(design, entrant, seed, origin)
        origins = {name: case for name, (case, _) in origin.items() if case != name}
    return Contestant(
        name=entrant.name,
        runs=scores,
        cost=_with_training(
            _cost_of_nnunet(design, entrant) if entrant.is_nnunet else cost,
            [one for folds in whole.values() for one in folds.values()],
        ),
        fault="; ".join(f"{_within(cell)}: {faults.get(cell.name, 'not finished')}" for cell in missing),
        files=files,
        settings={
            **entrant.to_dict(),
            "settings": list(entrant.settings) if entrant.is_nnunet else design.settings_of(entrant),
        },
        notes=_notes(design, whole, found),
        origins=origins,
        logs={f"seed {seed}, fold {fold}": one.log for seed, folds in whole.items() for fold, one in folds.items()},
    )


def _cost_of_nnunet(design: Design, entrant: Entrant) -> Cost:
    """What nnU-Net's trainer noted in the first training that is finished."""
    cells = [cell for cell in design.cells if cell.entrant == entrant]
    files = [design.cell_folder(cell) / f"fold_{cell.fold}" / TRAINING_FILE for cell in cells]
    for file in (file for file in files if file.is_file()):
        noted = read_json(file)
        return Cost(
            parameters=noted["parameters"],
            patch_size=tuple(noted["patch_size"]),
            batch_size=noted["batch_size"],
            step_s=noted["seconds_per_step"],
            threads=noted["torch_threads"],
            notes=("Patch, batch and all else are nnU-Net's own; parameters are with all heads, steps with batches.",),
        )
    return Cost()


def _within(cell: Cell) -> str:
    return f"fold {cell.fold}, seed {cell.seed}"


def _with_training(cost: Cost, outcomes: list[FinishedFold]) -> Cost:
    """`cost` with the means of the trainings' times and steps."""
    taken = ("steps", "training_s", "seconds_per_case")
    costs = [replace(cost, **{name: getattr(one, name) for name in taken}) for one in outcomes]
    return mean_cost(costs) or cost


def _notes(
    design: Design,
    whole: Mapping[int, object],
    found: Mapping[int, Mapping[int, FinishedFold | None]],
) -> tuple[str, ...]:
    """Seeds that are left out though some of their folds are finished."""
    begun = [str(seed) for seed, folds in found.items() if seed not in whole and any(folds.values())]
    if not begun or len(design.folds) == 1:
        return ()
    return (f"Left out, since not all folds are finished: seed {', '.join(begun)}.",)


def _files(design: Design, entrant: Entrant, seed: int, origin: Mapping[str, tuple[str, str]]) -> dict[str, CaseFiles]:
    """Files of the cases of one seed, by their names among the pooled scores."""
    pairs = {
        str(fold): read_pairs(
            design.cell_folder(Cell(entrant, fold, seed)) / f"fold_{fold}" / VALIDATION_FOLDER / PAIRS_FILE
        )
        for fold in design.folds
    }
    return {name: pairs[fold][case] for name, (case, fold) in origin.items() if case in pairs[fold]}

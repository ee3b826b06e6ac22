"""The commands `plan` and `preprocess`, and the steps that `train` shares with them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from voxelseg.commands.arguments import choose_device
from voxelseg.commands.display import PathLike, counting_bar, say, say_left_out
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import ConfigError
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import make_plan
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.train.config import RunConfig, build_config
from voxelseg.train.memory import plan_limits
from voxelseg.train.run import build_network


def plan(
    data: PathLike,
    out: PathLike,
    *,
    model: str = "mednext_s",
    device: str = "auto",
    memory_gb: float | None = None,
    settings: Sequence[str] = (),
    workers: int = 2,
    console: Console | None = None,
) -> Plan:
    """Measure the data set at `data` and decide spacing, normalisation, patch, batch and mirroring for `model`.

    Writes `out`/fingerprint.json and `out`/plan.json, which may be changed by hand. `memory_gb` bounds a training step;
    `settings` are "plan.key=value", and "model.key=value" for options that change what fits.
    """
    config = build_config(list(settings))
    on = choose_device(device)
    dataset = read_dataset(data)
    say_left_out(console, dataset)
    check_model(model, dataset, config)
    work = WorkFolder(Path(out))
    fingerprint = measure(work, Path(data), dataset, workers=workers, console=console)
    planned = plan_from(fingerprint, dataset, model, config, on, memory_gb)
    planned.write(work.plan_path)
    say(console, f"Wrote {work.fingerprint_path} and {work.plan_path}.", f"voxelseg preprocess {out}")
    return planned


def preprocess(work: PathLike, *, workers: int = 2, console: Console | None = None) -> dict[str, StoredCase]:
    """Preprocess every case of a planned data set into `work`/store; what is there and current is kept."""
    folder = WorkFolder(Path(work))
    dataset = folder.dataset()
    stored = store(folder, dataset, folder.plan(), workers=workers, console=console)
    say(
        console,
        f"Preprocessed {len(stored)} cases in {folder.store_path}.",
        f"voxelseg train {dataset.root} --out RUN --work {work}",
    )
    return stored


def check_model(model: str, dataset: Dataset, config: RunConfig) -> None:
    """ConfigError for an unknown model or option, at once: the network is built without memory for its weights."""
    try:
        with torch.device("meta"):
            build_network(model, dataset, config)
    except (TypeError, ValueError) as error:  # a value of the wrong type, such as text for a number
        raise ConfigError(f"options of {model} {config.model}: {error}. Correct their values.") from error


def measure(work: WorkFolder, data: Path, dataset: Dataset, *, workers: int, console: Console | None) -> Fingerprint:
    """Fingerprint of the data set, from `work` if no input file changed since."""
    with counting_bar(console, "measuring", total=len(dataset.cases)) as update:
        return work.fingerprint(data, dataset, workers=workers, progress=update)


def plan_from(
    fingerprint: Fingerprint,
    dataset: Dataset,
    model: str,
    config: RunConfig,
    device: torch.device,
    memory_gb: float | None,
) -> Plan:
    """The planner's plan for what `model` and `device` allow; the user's values are fixed, the others follow them."""
    limits = plan_limits(model, dataset, config, device, memory_gb=memory_gb)
    return make_plan(fingerprint, limits, config.plan)


def store(
    work: WorkFolder, dataset: Dataset, plan: Plan, *, workers: int, console: Console | None
) -> dict[str, StoredCase]:
    """All cases of `dataset`, preprocessed by `plan`."""
    with counting_bar(console, "preprocessing", total=len(dataset.cases)) as update:
        return work.stored_cases(dataset, plan, workers=workers, progress=update)


def plan_table(plan: Plan) -> Table:
    """The plan for people."""
    normalization = zip(plan.channels, plan.normalization, strict=True)
    rows = {
        "spacing (mm)": "  ".join(f"{mm:.3g}" for mm in plan.spacing_mm),
        "patch (voxels)": "  ".join(map(str, plan.patch_size)),
        "batch": str(plan.batch_size),
        "median scan (voxels)": "  ".join(map(str, plan.median_shape)),
        "normalisation": ", ".join(f"{channel}: {rule.kind}" for channel, rule in normalization),
        "mirrored axes": ", ".join("DHW"[axis] for axis in plan.mirror_axes) or "none",
    }
    table = Table(title="Plan", show_header=False, title_justify="left")
    for key, value in rows.items():
        table.add_row(key, value)
    for note in plan.notes:
        table.add_row("note", note)
    return table

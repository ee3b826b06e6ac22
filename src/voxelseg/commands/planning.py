"""The commands `plan` and `preprocess`, and the steps that `train` shares with them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelseg.commands.arguments import choose_device
from voxelseg.commands.configuring import what_to_train
from voxelseg.commands.display import PathLike, counting_bar, say, say_left_out
from voxelseg.commands.probing import CHANGE_A_STEP, probed_plan, probing_budget
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import ConfigError
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import make_plan
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.recipes import Recipe
from voxelseg.train.config import NetworkConfig
from voxelseg.train.machines.memory import plan_limits
from voxelseg.train.run import build_network


def plan(
    data: PathLike,
    out: PathLike,
    *,
    recipe: str | Recipe | None = None,
    model: str | None = None,
    device: str = "auto",
    memory_gb: float | None = None,
    probe: bool = False,
    settings: Sequence[str] = (),
    workers: int = 2,
    console: Console | None = None,
) -> Plan:
    """Measure the data set at `data` and decide spacing, normalisation, patch, batch and mirroring for `model`.

    What a `recipe` says of them is kept; without, `model` is mednext_s unless another is named. Writes
    `out`/fingerprint.json and `out`/plan.json, which may be changed by hand. `memory_gb` bounds a training step;
    with `probe` the largest patch or batch that fits is found by real training steps, by default in what a GPU has
    free. `settings` are "plan.key=value", and "model.key=value" for options that change what fits.

    Raises ConfigError for an unknown or impossible option, and a memory budget that is too small; DataError for a data
    set that cannot be read or used; WorkerError if a background process fails; VoxelsegError if `out` cannot be
    written.
    """
    _refuse_without_effect(settings, probe=probe)
    _, model, config = what_to_train(recipe=recipe, model=model, settings=settings)
    on = choose_device(device)
    if probe:
        memory_gb = probing_budget(on, memory_gb)
    dataset = read_dataset(data)
    say_left_out(console, dataset)
    check_model(model, dataset, config)
    work = WorkFolder(Path(out))
    fingerprint = measure(work, dataset, workers=workers, console=console)
    if probe:
        assert memory_gb is not None
        planned = probed_plan(fingerprint, dataset, model, config, on, memory_gb, console=console)
    else:
        planned = plan_from(fingerprint, dataset, model, config, on, memory_gb)
    work.write_plan(planned)
    training = ["--recipe", recipe] if isinstance(recipe, str) else ["--model", model]
    say(
        console,
        f"Wrote {work.fingerprint_path} and {work.plan_path}.",
        ["preprocess", out],
        ["train", dataset.source, "--out", "RUN", *training, "--work", out],
    )
    return planned


def _refuse_without_effect(settings: Sequence[str], *, probe: bool) -> None:
    """ConfigError for settings that belong to the training."""
    deciding = {"deep_supervision", "grow_kernel"} | (CHANGE_A_STEP if probe else set())
    keys = {setting.partition("=")[0].strip() for setting in settings} - {f"train.{key}" for key in deciding}
    idle = sorted(key for key in keys if key.split(".")[0] in {"train", "augmentation", "predict", "transfer"})
    if idle:
        raise ConfigError(f"{', '.join(idle)}: decides nothing in a plan. Give it to `voxelseg train`.")


def preprocess(work: PathLike, *, workers: int = 2, console: Console | None = None) -> dict[str, StoredCase]:
    """Preprocess every case of a planned data set into `work`/store; what is there and current is kept.

    Raises DataError if `work` holds no plan, and for scans that cannot be used, all of them named; ConfigError for a
    plan that was changed to an impossible one; WorkerError if a background process fails; VoxelsegError if `work`
    cannot be written.
    """
    folder = WorkFolder(Path(work))
    dataset = folder.dataset()
    stored = store(folder, dataset, folder.plan(), workers=workers, console=console)
    say(
        console,
        f"Preprocessed {len(stored)} cases in {folder.store_path(folder.plan())}.",
        ["train", dataset.source, "--out", "RUN", "--model", "NAME", "--work", work],
    )
    return stored


def check_model(model: str, dataset: Dataset, config: NetworkConfig) -> None:
    """ConfigError for an unknown model or option, at once: the network is built without memory for its weights."""
    try:
        with torch.device("meta"):
            build_network(model, dataset, config)
    except (TypeError, ValueError) as error:  # a value of the wrong type, such as text for a number
        raise ConfigError(f"options of {model} {config.model}: {error}. Correct their values.") from error


def measure(work: WorkFolder, dataset: Dataset, *, workers: int, console: Console | None) -> Fingerprint:
    """Fingerprint of the data set, from `work` if no input file changed since."""
    with counting_bar(console, "measuring", total=len(dataset.cases)) as update:
        return work.fingerprint(dataset, workers=workers, progress=update)


def plan_from(
    fingerprint: Fingerprint,
    dataset: Dataset,
    model: str,
    config: NetworkConfig,
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
        table.add_row(key, Text(value))
    for note in plan.notes:
        table.add_row("note", Text(note))
    return table

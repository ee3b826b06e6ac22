"""What the options of `benchmark` mean."""

from collections.abc import Sequence
from pathlib import Path

import torch

from voxelseg.benchmark.design import NNUNET_FOLDER
from voxelseg.benchmark.entrants import Entrant, parse_entrants
from voxelseg.benchmark.fair_plan import Contender
from voxelseg.benchmark.grids import grid_entrants
from voxelseg.benchmark.jobs import NNUNet
from voxelseg.benchmark.length import Length
from voxelseg.benchmark.nnunet import check_nnunet_folder, nnunet_python
from voxelseg.commands.arguments import choose_device
from voxelseg.commands.configuring import what_to_train
from voxelseg.commands.display import PathLike
from voxelseg.errors import ConfigError
from voxelseg.train.machines.memory import MEMORY_GB
from voxelseg.train.machines.resources import num_cores
from voxelseg.train.settings import check_seed

_NOT_HERE = {
    "transfer.init": "give init in a file of contestants (--models FILE)",
    "train.threads": "--threads says that",
}
MOST_SEEDS = 1000
"""More than that is a seed itself, written where their number belongs."""
_SET_BY_STEPS = ("train.steps_per_epoch", "train.epochs", "train.budget_s")


def chosen_entrants(models: str | None, grid: str | None, length: Length) -> tuple[Entrant, ...]:
    """Contestants of --models, or of a --grid with the network in --models; ConfigError without any."""
    if grid is not None:
        return grid_entrants(grid, length, parse_entrants(models) if models is not None else ())
    if models is None:
        raise ConfigError("expected --models or --grid: who is to be compared.")
    return parse_entrants(models)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds 0 to N - 1 for a number N, or those of a list such as "0,1,2" or "7,"; ConfigError for anything else."""
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {text!r}: expected a number of seeds, or a list such as 0,1,2.") from error
    if "," not in text and numbers[0] > MOST_SEEDS:
        raise ConfigError(f"--seeds {text}: are more than {MOST_SEEDS}. If one seed is meant, write {text},")
    seeds = tuple(range(numbers[0])) if "," not in text else tuple(numbers)
    if not seeds:
        raise ConfigError(f"--seeds {text}: expected 1 or more.")
    for seed in seeds:
        check_seed(seed)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text}: names a seed twice.")
    return seeds


def refuse_settings(settings: Sequence[str], length: Length) -> None:
    """ConfigError for settings that an option of the benchmark decides."""
    for key in (setting.partition("=")[0].strip() for setting in settings):
        if key in _NOT_HERE:
            raise ConfigError(f"--set {key}: {_NOT_HERE[key]}. Leave it out.")
        if length.steps is not None and key in _SET_BY_STEPS:
            raise ConfigError(f"--set {key}: --steps sets the length. Leave one out.")


def refuse_without_slurm(slurm: bool, **options: Sequence[str]) -> None:
    """ConfigError for options of a cluster's jobs if there are none."""
    given = [f"--{name.replace('_', '-')}" for name, values in options.items() if values]
    if given and not slurm:
        raise ConfigError(f"{' and '.join(given)}: for the jobs of a cluster only. Give --slurm too, or leave it out.")


def chosen_devices(text: str) -> list[str]:
    """Devices of "cuda:0,cuda:1", "cpu" or "auto"; ConfigError for one that is not there, or for unlike ones."""
    found = [str(choose_device(name.strip())) for name in text.split(",") if name.strip()]
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"--device {text!r}: expected one device, or several different ones such as cuda:0,cuda:1.")
    if len({name.partition(":")[0] for name in found}) > 1:
        raise ConfigError(f"--device {text}: a fair benchmark runs on devices of one kind.")
    models = {name: torch.cuda.get_device_name(name) for name in found if name.startswith("cuda")}
    if len(set(models.values())) > 1:
        listed = ", ".join(f"{name} is {model}" for name, model in models.items())
        raise ConfigError(
            f"--device {text}: a fair benchmark runs on devices of one kind, and {listed}. Choose equal ones."
        )
    return found


def chosen_pace(
    jobs: int | None, threads: int | None, devices: Sequence[str], length: Length, *, sbatch: Sequence[str] | None
) -> tuple[int, int]:
    """Trainings at a time, and threads of each; `sbatch` are the options of a cluster's jobs, None without a cluster.

    ConfigError for devices of which one would have nothing to do or, where minutes count, more trainings than another.
    """
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: expected 1 or more.")
    if sbatch is not None:
        return jobs or 1, threads or _cluster_threads(sbatch)
    jobs, num = len(devices) if jobs is None else jobs, len(devices)
    if jobs < num or (length.in_minutes and jobs % num):
        raise ConfigError(
            f"--jobs {jobs}: {num} devices would not all have as many trainings at a time, so that minutes on them "
            f"would not be equal. Give a multiple of {num}, or fewer devices."
        )
    return jobs, threads or max(num_cores() // jobs, 1)


def _cluster_threads(sbatch: Sequence[str]) -> int:
    """Cores that a job asks for: those of the machine that makes the jobs say nothing of theirs."""
    for option in sbatch:
        name, _, value = option.partition("=")
        if name == "--cpus-per-task" and value.isdecimal() and int(value) > 0:
            return int(value)
    raise ConfigError("--slurm: say how many threads a training has: --threads N, or --sbatch=--cpus-per-task=N.")


def contender_of(entrant: Entrant, settings: Sequence[str], length: Length) -> Contender:
    """Network and configuration of a contestant, whose own settings go before those of all; ConfigError as `train`."""
    given = [*settings, *entrant.settings]
    _, model, config = what_to_train(
        recipe=None,
        model=entrant.model,
        init=entrant.init,
        settings=[*length.settings(given), *given],
        epochs=length.epochs,
        budget=length.budget,
    )
    return Contender(model, config)


def planning_device(name: str, memory_gb: float | None) -> tuple[torch.device, float | None]:
    """Device to measure on here, and the memory to plan for: a cluster's GPUs need not be where the jobs are made."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        return torch.device("cpu"), MEMORY_GB["cuda"] if memory_gb is None else memory_gb
    return choose_device(name), memory_gb


def chosen_nnunet(
    entrants: Sequence[Entrant], environment: PathLike | None, contenders: Sequence[Contender], out: Path
) -> NNUNet | None:
    """How nnU-Net is run, if it takes part, with the length of the others; ConfigError unless it can be in `out`."""
    taking_part = any(one.is_nnunet for one in entrants)
    if not taking_part and environment is None:
        return None
    if not taking_part:
        raise ConfigError("--nnunet-env: nnunet is not among the contestants. Add it to --models, or leave it out.")
    if environment is None:
        raise ConfigError("nnunet runs in an environment of its own. Say where: --nnunet-env DIR.")
    if not contenders:
        raise ConfigError("nnunet needs a network to be compared with. Add one to --models.")
    check_nnunet_folder(out / NNUNET_FOLDER, Path(environment))
    nnunet_python(Path(environment))
    config = contenders[0].config
    budget_s, steps = config.train.budget_s, config.train.epochs * config.train.steps_per_epoch
    return NNUNet(
        environment=Path(environment).absolute(),
        minutes=None if budget_s is None else budget_s / 60,
        steps=steps if budget_s is None else None,
        loaders=config.train.workers,
        tolerance_mm=config.predict.tolerance_mm,
    )

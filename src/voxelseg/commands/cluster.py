"""The command `slurm`, and scripts of many trainings: what trains on the machines of a cluster."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from voxelseg.commands.display import PathLike
from voxelseg.errors import ConfigError
from voxelseg.files import make_folder, write_text
from voxelseg.version import __version__

SECONDS_TO_SAVE = 300
"""So long before the time limit the training is asked to stop, which saves its state."""
SHORTEST_JOB_S = 2 * SECONDS_TO_SAVE
"""A job with less time would be stopped before it got anywhere, and queued again for ever."""
_FORMS = {
    "time": (r"\d+(-\d+)?(:\d\d?){0,2}", "24:00:00 or 2-12"),
    "partition": (r"[\w.,+-]+", "the name of one, or several with commas between"),
    "mem": (r"\d+[KMGT]?", "64G"),
    "sbatch": (r"--[a-z-]+(=\S+)?", "--account=NAME"),
}
_QUEUED_AGAIN = ("--open-mode=append", "--requeue", f"--signal=B:USR1@{SECONDS_TO_SAVE}")
"""Options of a job that asks to be stopped before its limit, and goes on later."""
_REQUEUE = f"""\
# SLURM sends USR1 {SECONDS_TO_SAVE} seconds before the time limit. The training then stops, which saves its state, and
# the job is queued again: the same command continues exactly where it was.
job="${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}"
job="${{job:-$SLURM_JOB_ID}}"
queue_again() {{
    trap '' USR1
    scancel --signal=TERM "$job"  # to the training, not to this script
    if wait "$training"; then exit 0; fi  # it had just finished
    scontrol requeue "$job"
    exit $?  # an error if the cluster refuses
}}
trap queue_again USR1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={SECONDS_TO_SAVE - 60}  # torchrun gives a step 30 seconds to end otherwise
"""


def slurm(
    out: PathLike,
    arguments: Sequence[str],
    *,
    nodes: int = 1,
    gpus_per_node: int = 1,
    folds: int | None = None,
    time: str | None = None,
    partition: str | None = None,
    cpus_per_task: int | None = None,
    mem: str | None = None,
    sbatch: Sequence[str] = (),
    env_setup: Sequence[str] = (),
    console: Console | None = None,
) -> Path:
    """Write the script `out` that runs `voxelseg train` with `arguments` under SLURM; returns it.

    One process for each GPU, or one for each node without GPUs, trains on all `nodes`. With `folds` the job is an array
    with a task for each of so many folds. The job queues itself again before its time limit and goes on. `sbatch` are
    further options of a job ("--account=NAME"), `env_setup` lines of shell that make `voxelseg` available.

    Raises ConfigError for an impossible value, or one with which the job would never get anywhere; VoxelsegError if
    `out` cannot be written.
    """
    _check_counts(nodes=nodes, cpus_per_task=cpus_per_task, folds=folds)
    if gpus_per_node < 0:
        raise ConfigError(f"--gpus-per-node {gpus_per_node}: expected 0 or more.")
    _check_time(time)
    _check_arguments(arguments, folds)
    options = {"time": time, "partition": partition, "cpus-per-task": cpus_per_task, "mem": mem}
    header = [
        "--job-name=voxelseg",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={gpus_per_node}"] if gpus_per_node else []),
        *(f"--{name}={_checked(name, str(value))}" for name, value in options.items() if value is not None),
        *([f"--array=0-{folds - 1}"] if folds is not None else []),
        f"--output=%x-{'%j' if folds is None else '%A_%a'}.out",
        *_QUEUED_AGAIN,
        *(_checked("sbatch", option) for option in sbatch),
    ]
    path = Path(out)
    make_folder(path.absolute().parent)
    script = _script(path, header, env_setup, _training(arguments, nodes, gpus_per_node, cpus_per_task, folds))
    write_text(path, script)
    if console is not None:
        text = f"Wrote {path}.\nNext:\n  {shlex.join(['sbatch', str(path)])}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    return path


def slurm_array(
    out: Path,
    tasks: Sequence[Sequence[str]],
    *,
    at_once: int | None = None,
    sbatch: Sequence[str] = (),
    env_setup: Sequence[str] = (),
) -> Path:
    """Write the script `out` of an array of jobs, each of which runs one of `tasks` on one machine; returns it.

    A task is a module and its arguments, as `python -m` takes them. A job queues itself again before its time limit and
    goes on. `at_once` bounds how many run at a time; `sbatch` and `env_setup` are as in `slurm`, with the limit as
    "--time=...". ConfigError for an impossible value; VoxelsegError if `out` cannot be written.
    """
    given = dict(_checked("sbatch", option).partition("=")[::2] for option in sbatch)
    _check_time(given.get("--time"))
    if any("\0" in word for task in tasks for word in task):
        raise ConfigError("an argument of a training holds a zero byte. Correct it.")
    header = [
        "--job-name=voxelseg",
        "--nodes=1",
        "--ntasks-per-node=1",
        f"--array=0-{len(tasks) - 1}{'' if at_once is None else f'%{at_once}'}",
        "--output=%x-%A_%a.out",
        *_QUEUED_AGAIN,
        *sbatch,
    ]
    srun = ["srun", "--kill-on-bad-exit=1"]
    if "--cpus-per-task" in given:
        srun.append(f"--cpus-per-task={given['--cpus-per-task']}")
    cases = [f"{number}) set -- {shlex.join(task)} ;;" for number, task in enumerate(tasks)]
    lines = ['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac", f'{shlex.join(srun)} python -m "$@" &']
    write_text(out, _script(out, header, env_setup, "\n".join(lines), made_by="voxelseg benchmark --slurm"))
    return out


def _check_time(time: str | None) -> None:
    """ConfigError for a limit of another form, or one with which a job would be queued again for ever."""
    if time is not None and seconds_of(_checked("time", time)) <= SHORTEST_JOB_S:
        raise ConfigError(
            f"--time {time}: expected more than {SHORTEST_JOB_S // 60} minutes. The job stops the training "
            f"{SECONDS_TO_SAVE // 60} minutes before its limit."
        )


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected 1 or more.")


def _check_arguments(arguments: Sequence[str], folds: int | None) -> None:
    """ConfigError for arguments that a script cannot hold, or that do not go with an array of folds."""
    if not arguments:
        raise ConfigError("nothing to train. Put what `voxelseg train` takes after two dashes: -- DATA --out RUN")
    if any("\0" in argument for argument in arguments):
        raise ConfigError("an argument of the training holds a zero byte. Correct it.")
    if folds is not None and any(argument.partition("=")[0] == "--fold" for argument in arguments):
        raise ConfigError(f"--folds {folds} gives each task its fold. Leave --fold out of the training's arguments.")


def _checked(name: str, value: str) -> str:
    """`value`, which becomes part of a line that SLURM reads; ConfigError if it has another form."""
    form, example = _FORMS.get(name, (r"\d+", "a number"))
    if not re.fullmatch(form, value):
        raise ConfigError(f"--{name} {value!r}: expected {example}.")
    return value


def seconds_of(time: str) -> int:
    """Seconds of a time in one of SLURM's forms: M, M:S, H:M:S, D-H, D-H:M and D-H:M:S."""
    days, dash, rest = time.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if not dash and len(numbers) < 3:
        numbers = [0, *numbers]  # no hours
    hours, minutes, seconds = [*numbers, 0, 0][:3]
    return ((24 * int(days or 0) + hours) * 60 + minutes) * 60 + seconds


def _script(
    path: Path, header: Sequence[str], env_setup: Sequence[str], training: str, *, made_by: str = "voxelseg slurm"
) -> str:
    for line in env_setup:
        if "\n" in line:
            raise ConfigError(f"--env-setup {line!r}: expected one line. Give the option several times.")
    name = " ".join(str(path).split())
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Made by `{made_by}` {__version__}. Submit it with: sbatch {shlex.quote(name)}",
            *(f"#SBATCH {option}" for option in header),
            "",
            *env_setup,
            *([""] if env_setup else []),
            _REQUEUE,
            training,
            "training=$!",
            'wait "$training"',
            "",
        ]
    )


def _training(
    arguments: Sequence[str], nodes: int, gpus_per_node: int, cpus_per_task: int | None, folds: int | None
) -> str:
    """Lines that start the training in the background."""
    processes = max(gpus_per_node, 1)
    srun = ["srun", "--kill-on-bad-exit=1"]
    if cpus_per_task is not None:  # since SLURM 22.05 a step does not take it over from its job
        srun.append(f"--cpus-per-task={cpus_per_task}")
    fold = "" if folds is None else ' --fold "$SLURM_ARRAY_TASK_ID"'
    train = f"train {shlex.join(arguments)}{fold} &"
    if nodes * processes == 1:
        return f"{shlex.join(srun)} voxelseg {train}"
    if nodes == 1:
        return f"{shlex.join(srun)} torchrun --standalone --nproc-per-node={processes} -m voxelseg {train}"
    return "\n".join(
        [
            'first_node="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
            "port=$((20000 + SLURM_JOB_ID % 20000))  # two jobs on one node need two",
            f"{shlex.join(srun)} torchrun --nnodes={nodes} --nproc-per-node={processes} \\",
            '    --rdzv-backend=c10d --rdzv-endpoint="$first_node:$port" --rdzv-id="$job" \\',
            f"    -m voxelseg {train}",
        ]
    )

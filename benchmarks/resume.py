"""Does a training that is killed with SIGKILL, again and again, end with the bits of one that was not?

    python benchmarks/resume.py --kills 30 --out DIR

One small training for each of the four networks and one of E2ENet with dynamic sparse feature fusion, on a phantom, in
deterministic mode and with lengths in steps; each has other settings, so that every part of the state is needed. It
runs once undisturbed. Then `voxelseg train` is started and killed, after a delay from the first line that it writes to
its log, drawn evenly up to the time that the rest of the training takes undisturbed, and every third time in the middle
of the next file that it writes then; sometimes with its worker processes and sometimes alone. It is started again,
until it has come to its end in spite of that; then in a fresh folder, until the kills are used up. Each time it comes
to its end, weights, best weights, log and predictions must equal the undisturbed ones bit for bit, and no temporary
file may be left.

Just before each other kill the process writes down what it is doing (faulthandler): the table counts in what the kills
came. `seconds` are those of the undisturbed training, from the first line of its log to the last, and `ended` counts
how often it came to its end after kills. Exit code 1 if anything differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kill_and_continue import CorruptError, check_outputs, run_command, trained

from voxelseg.files import TEMPORARY_PREFIX, read_json
from voxelseg.phantom import make_phantom
from voxelseg.train.loop.log import read_log

EPOCHS, STEPS_PER_EPOCH = 5, 5
COMMON = (
    *("--device", "cpu", "--epochs", str(EPOCHS), "--set", f"train.steps_per_epoch={STEPS_PER_EPOCH}"),
    *("--set", "train.deterministic=true", "--set", "train.validation_patches=4", "--set", "predict.overlap=0.25"),
    *("--set", "plan.patch_size=[16,32,32]", "--set", "plan.batch_size=2"),
)
TRAININGS: Mapping[str, Sequence[str]] = {
    "MedNeXt": (
        *("mednext_s", "model.width=4", "model.blocks=1"),
        *("train.ema=0.9", "train.workers=2", "train.schedule=plateau", "train.plateau_patience=1"),
    ),
    "3D UX-Net": (
        *("uxnet", "model.features=[4,6,8,10]", "model.depths=[1,1,1,1]", "model.kernel_size=3"),
        *("model.drop_path=0.3", "train.accumulate=2", "train.workers=1"),
    ),
    "E2ENet": (
        *("e2enet", "model.width=4", "model.sparsity=0"),
        *("train.optimizer=sgd", "train.lr=0.01", "train.workers=0", "train.validate_every=2"),
    ),
    "LoGoNet": (
        *("logonet", "model.dims=[4,6]", "model.depths=[1,1]", "model.mlp_ratios=[2,2]"),
        *("model.local_stages=1", "model.cubes_per_axis=[1,2,2]", "train.workers=1", "train.warmup=0.2"),
    ),
    "E2ENet, sparse": (
        *("e2enet", "model.width=4", "sparse.sparsity=0.5", "sparse.update_every=2"),
        *("train.ema=0.9", "train.workers=2", "train.optimizer=sgd", "train.lr=0.01"),
    ),
}
"""Name of each training: its model, and its settings."""
PHASES = {"saving": ("save_state", "save_checkpoint"), "validation": ("look",), "training": ("_take_step", "fit")}
"""What a process does, by the functions that it is in; the first that fits."""
_STARTED_WITH_REPORTS = (
    "import faulthandler, signal, sys; "
    "faulthandler.register(signal.SIGUSR1, file=open(sys.argv.pop(1), 'w')); "
    "from voxelseg.__main__ import main; main()"
)
"""`voxelseg` that writes where it is into the file named first when it gets SIGUSR1."""
FIRST_LINE_WITHIN_S = 300.0


@dataclass
class Outcome:
    """What one of the trainings went through."""

    name: str
    seconds: float = 0.0
    """From the first line of the log to the last, undisturbed."""
    kills: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    """What the kills came in."""
    finished: int = 0
    """Times that it came to its end after having been killed."""
    difference: str = ""
    """What differed then, if anything did."""


class Training:
    """One of `TRAININGS` on `data`, whose runs share the preprocessed cases."""

    def __init__(self, name: str, data: Path, folder: Path) -> None:
        self.name = name
        self.data = data
        self.folder = folder
        self.seconds = 0.0
        """Of the whole training, undisturbed, once that is known."""

    def arguments(self, run: Path) -> list[str | Path]:
        """Of `voxelseg`."""
        model, *settings = TRAININGS[self.name]
        chosen = [word for setting in settings for word in ("--set", setting)]
        return ["train", self.data, "--out", run, "--work", self.folder / "work", "--model", model, *COMMON, *chosen]

    def undisturbed(self) -> float:
        """Train once; returns the seconds from the first line of the log to the last."""
        run_command(self.arguments(self.folder / "undisturbed"))
        log = read_log(self.folder / "undisturbed" / "fold_0" / "log.jsonl")
        self.seconds = float(log[-1]["time"] - log[0]["time"])
        return self.seconds

    def killed(self, run: Path, moment: float, *, with_workers: bool, while_saving: bool) -> str | None:
        """What the training in `run` did when it was killed; None if it ended before.

        That is when the share `moment` of the time is over that the rest of the training takes, and with `while_saving`
        once a file is being written after that.
        """
        log, report = run / "fold_0" / "log.jsonl", self.folder / "report.txt"
        before = _last_start(log)
        command = [sys.executable, "-c", _STARTED_WITH_REPORTS, str(report), *map(str, self.arguments(run))]
        with tempfile.TemporaryFile("w+") as words:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words, start_new_session=True)
            _wait(process, FIRST_LINE_WITHIN_S, lambda: _last_start(log) != before)
            _wait(process, moment * self._seconds_left(log))
            if while_saving:
                _wait(process, FIRST_LINE_WITHIN_S, lambda: any(log.parent.glob(f"{TEMPORARY_PREFIX}*")))
            if process.poll() is None:
                doing = "saving" if while_saving else _phase(process, report)
                if with_workers:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                process.wait()
                return doing
            if process.returncode != 0:
                words.seek(0)
                message = f"{self.name}: started again, ended with exit code {process.returncode}:\n{words.read()}"
                raise CorruptError(message)
        return None

    def _seconds_left(self, log: Path) -> float:
        """What a training takes that has just begun or gone on."""
        _, step = _last_start(log) or (0.0, 0)
        return self.seconds * (1 - step / (EPOCHS * STEPS_PER_EPOCH))


def _wait(process: subprocess.Popen[bytes], seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Wait so long, or until the process has ended or `until` is true."""
    gives_up = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < gives_up and not until():
        time.sleep(0.002)


def _last_start(log: Path) -> tuple[float, int] | None:
    """When the last process that wrote into `log` began to train, and from which step on."""
    events = [event for event in read_log(log) if event["event"] in ("start", "resume")]
    return (events[-1]["time"], events[-1]["step"]) if events else None


def _phase(process: subprocess.Popen[bytes], report: Path) -> str:
    """Have `process` write down where it is; a key of `PHASES`, or "else"."""
    process.send_signal(signal.SIGUSR1)
    gives_up = time.monotonic() + 1.0
    while not (report.is_file() and report.stat().st_size) and time.monotonic() < gives_up:
        time.sleep(0.001)
    return phase_of(report.read_text())


def phase_of(traceback: str) -> str:
    """Key of `PHASES` for the traceback of a process, which names its functions; "else" if none fits."""
    functions = {line.rpartition(" in ")[2].strip() for line in traceback.splitlines()}
    return next((phase for phase, names in PHASES.items() if functions & set(names)), "else")


def kill_and_resume(training: Training, *, kills: int, generator: random.Random) -> Outcome:
    """Kill `training` so many times; its outcome says what differs from an undisturbed one."""
    outcome = Outcome(training.name, seconds=training.undisturbed())
    undisturbed = training.folder / "undisturbed"
    expected = trained(undisturbed)
    assert read_json(undisturbed / "run.json")["config"]["train"]["deterministic"]
    while outcome.kills < kills:
        run = training.folder / f"disturbed_{outcome.finished}"
        while outcome.kills < kills:
            moment = generator.random()
            with_workers, while_saving = generator.random() < 0.5, outcome.kills % 3 == 2
            doing = training.killed(run, moment, with_workers=with_workers, while_saving=while_saving)
            if doing is None:
                break
            outcome.kills += 1
            outcome.phases[doing] += 1
        run_command(training.arguments(run))
        try:
            check_outputs(training.name, run, found=trained(run), expected=expected)
        except CorruptError as error:
            outcome.difference = str(error)
            return outcome
        shutil.rmtree(run)
        outcome.finished += 1
    return outcome


HEADER = ("network", "kills", "steps", "seconds", "in training", "validation", "saving", "else", "ended", "identical")


def _line(values: Sequence[object]) -> str:
    first, *others = map(str, values)
    return f"{first:16}" + "".join(
        f"{value:>{len(title) + 2}}" for title, value in zip(HEADER[1:], others, strict=True)
    )


def _values(outcome: Outcome) -> list[object]:
    """Of the columns of the table."""
    phases = [outcome.phases[phase] for phase in ("training", "validation", "saving", "else")]
    identical = "NO" if outcome.difference else "yes"
    seconds = f"{outcome.seconds:.1f}"
    return [outcome.name, outcome.kills, EPOCHS * STEPS_PER_EPOCH, seconds, *phases, outcome.finished, identical]


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill each training, print a line for each, and exit with 1 if any ended differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="altogether, spread evenly over the trainings")
    parser.add_argument("--training", action="append", choices=TRAININGS, help="only this one; may be given again")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="folder to work in, kept; default: a temporary one")
    options = parser.parse_args(arguments)
    generator, names = random.Random(options.seed), options.training or list(TRAININGS)
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        data = make_phantom(folder / "data", num_training=4, num_test=1)
        print(_line(HEADER), flush=True)
        for number, name in enumerate(names):
            kills = options.kills // len(names) + (number < options.kills % len(names))
            training = Training(name, data, folder / f"{number}")
            outcomes.append(kill_and_resume(training, kills=kills, generator=generator))
            print(_line(_values(outcomes[-1])), flush=True)
    differences = [outcome.difference for outcome in outcomes if outcome.difference]
    print(f"{sum(outcome.kills for outcome in outcomes)} kills, {len(differences)} trainings that ended differently")
    if differences:
        sys.exit("\n".join(differences))


if __name__ == "__main__":
    main()

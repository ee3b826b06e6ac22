"""Does the same command finish, with sound outputs, after `kill -9` at random moments?

    python benchmarks/kill_and_continue.py --kills 20 --out DIR

For `preprocess`, `train` and `predict` on a small phantom: the command runs once undisturbed. Then it is started and
killed again and again in one folder, at moments drawn evenly between its start and the time that it took, sometimes
with its worker processes and sometimes alone, until it has come to its end in spite of that; then in a fresh folder,
until the kills are used up. Each time it comes to its end, everything it made must equal the undisturbed outputs (every
stored voxel, the weights bit for bit, every label map, the scores), every epoch must be logged once, and no temporary
file may be left. Exit code 1 and the difference otherwise. `resume.py` does this to trainings of each network.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelseg.checkpoint import load_checkpoint
from voxelseg.files import TEMPORARY_PREFIX, sha256_of_file
from voxelseg.phantom import make_phantom
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.train.loop.log import DONE_AGAIN

TRAINING = (
    *("--model", "mednext_xs", "--device", "cpu", "--epochs", "4"),
    *("--set", "model.width=4", "--set", "model.blocks=1", "--set", "plan.patch_size=[16,32,32]"),
    *("--set", "plan.batch_size=2", "--set", "train.steps_per_epoch=6", "--set", "train.workers=1"),
    *("--set", "train.validation_patches=2", "--set", "predict.overlap=0.25"),
)
Outputs = dict[str, str]
"""Name of each output and what it holds, in a form that can be compared."""


class CorruptError(Exception):
    """An output is damaged, missing, or not what an undisturbed run makes."""


@dataclass(frozen=True)
class Stage:
    """One command, what it needs, and what it makes."""

    name: str
    prepare: Callable[[Path], None]
    """Fills a fresh folder with what the command starts from."""
    arguments: Callable[[Path], Sequence[str | Path]]
    """Of the command in that folder."""
    outputs: Callable[[Path], Outputs]
    """What the command made there; raises what reading damaged files raises."""


@dataclass(frozen=True)
class Outcome:
    """What a stage went through."""

    stage: str
    kills: int
    finished: int
    """Times that the command came to its end after having been killed, its outputs equal to the undisturbed ones."""
    seconds: float
    """That the command takes undisturbed."""


def stages(folder: Path, *, num_training: int = 6, num_test: int = 4) -> list[Stage]:
    """The three stages on a phantom in `folder`; training prepares its own data, prediction takes its run."""
    data = make_phantom(folder / "data", num_training=num_training, num_test=num_test)
    planned = folder / "planned"
    run_command(["plan", data, "--out", planned, "--model", "mednext_xs", "--device", "cpu"])

    def copy_plan(here: Path) -> None:
        shutil.copytree(planned, here / "work")

    def copy_nothing(here: Path) -> None:
        here.mkdir(parents=True)

    run = folder / "train" / "undisturbed" / "run"
    return [
        Stage(
            "preprocess",
            copy_plan,
            lambda here: ["preprocess", here / "work"],
            lambda here: _stored(WorkFolder(here / "work")),
        ),
        Stage(
            "train",
            copy_nothing,
            lambda here: ["train", data, "--out", here / "run", *TRAINING],
            lambda here: trained(here / "run"),
        ),
        Stage(
            "predict",
            copy_nothing,
            lambda here: ["predict", run, "--input", data, "--output", here / "predictions", "--overlap", "0.75"],
            lambda here: files_in(here / "predictions", "*.nii.gz"),
        ),
    ]


def _stored(work: WorkFolder) -> Outputs:
    found = {}
    for case in work.dataset().cases:
        stored = StoredCase(case.id, work.store_path(work.plan()) / case.id)
        for name, array in (("image", stored.image), ("label", stored.label)):
            found[f"{case.id} {name}"] = hashlib.sha256(array[...].tobytes()).hexdigest()
        found[f"{case.id} classes"] = str([stored.voxels_of_class(one).tolist() for one in stored.classes])
    return found


def trained(run: Path) -> Outputs:
    """What a training of fold 0 made: weights of its end and of its best validation, its log, its predictions."""
    fold = run / "fold_0"
    log = [json.loads(line) for line in (fold / "log.jsonl").read_text().splitlines()]
    return {
        "weights": load_checkpoint(fold / "model.safetensors").fingerprint(),
        "best weights": load_checkpoint(fold / "best.safetensors").fingerprint(),
        "log": json.dumps([_without_times(event) for event in log if event["event"] in DONE_AGAIN]),
        "last event": log[-1]["event"],
        **files_in(fold / "validation", "*.nii.gz"),
        **files_in(fold / "validation", "cases.csv"),
    }


def _without_times(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("elapsed_s", "time")}


def files_in(folder: Path, pattern: str) -> Outputs:
    """Checksums of the files."""
    return {path.name: sha256_of_file(path) for path in sorted(folder.glob(pattern))}


def kill_and_continue(stage: Stage, folder: Path, *, kills: int, generator: random.Random) -> Outcome:
    """Kill the stage's command `kills` times in `folder`; CorruptError if it does not come to the same end."""
    undisturbed = folder / "undisturbed"
    stage.prepare(undisturbed)
    seconds, idle = (run_command(stage.arguments(undisturbed)) for _ in range(2))  # the second finds everything done
    expected = stage.outputs(undisturbed)
    killed = finished = 0
    while killed < kills:
        here = folder / f"disturbed_{finished}"
        stage.prepare(here)
        while killed < kills:
            moment = generator.uniform(0.5 * idle, seconds)
            if not _killed(stage.arguments(here), moment, with_workers=generator.random() < 0.5):
                break
            killed += 1
        run_command(stage.arguments(here))
        check_outputs(stage.name, here, found=stage.outputs(here), expected=expected)
        shutil.rmtree(here)
        finished += 1
    return Outcome(stage.name, killed, finished, seconds)


def check_outputs(name: str, here: Path, *, found: Outputs, expected: Outputs) -> None:
    """CorruptError, which tells where, unless outputs are as expected and no temporary file is left in `here`."""
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        raise CorruptError(f"{name}: {', '.join(differing)} in {here} differ from an undisturbed run")
    leftovers = [str(path) for path in here.rglob(f"{TEMPORARY_PREFIX}*")]
    if leftovers:
        raise CorruptError(f"{name}: {', '.join(leftovers)} are left")


def _command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "voxelseg", *map(str, arguments)]


def run_command(arguments: Sequence[str | Path]) -> float:
    """Seconds that the command took; CorruptError with its own words if it failed."""
    began = time.monotonic()
    done = subprocess.run(_command(arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CorruptError(f"`voxelseg {arguments[0]}` ended with exit code {done.returncode}:\n{done.stderr}")
    return time.monotonic() - began


def _killed(arguments: Sequence[str | Path], moment: float, *, with_workers: bool) -> bool:
    """Whether the command still ran `moment` seconds after its start, and so was killed; CorruptError if it failed."""
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(_command(arguments), stdout=subprocess.DEVNULL, stderr=words, start_new_session=True)
        try:
            code = process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            if with_workers:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            return True
        if code != 0:
            words.seek(0)
            raise CorruptError(
                f"`voxelseg {arguments[0]}`, started again, ended with exit code {code}:\n{words.read()}"
            )
    return False


def main() -> None:
    """Run all stages and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="for each of the three stages")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="folder to work in, kept; default: a temporary one")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        try:
            for stage in stages(folder):
                outcome = kill_and_continue(stage, folder / stage.name, kills=options.kills, generator=generator)
                print(
                    f"{outcome.stage}: killed {outcome.kills} times, came to the undisturbed end {outcome.finished} "
                    f"times; {outcome.seconds:.1f} s undisturbed",
                    flush=True,
                )
        except CorruptError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()

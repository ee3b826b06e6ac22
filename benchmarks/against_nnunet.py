"""Compares voxelseg with nnU-Net v2 on one fold: same cases, same cores, same minutes, one scorer.

    python benchmarks/against_nnunet.py DATA --fold 0 --minutes 25 --threads 2 --out DIR

Runs on the CPU under Linux. Contestants, one after the other:

- `voxelseg`: `voxelseg train` with `--budget`, in the environment that runs this script;
- `nnunet`: nnU-Net's plain U-Net (3d_fullres) with batch size 2, its mirroring off in training and prediction;
- `nnunet_mirror`: the same with its stock mirroring, in training and at test time.

What is equal: the folds (voxelseg's, handed to nnU-Net as splits_final.json), the cores (both are pinned to the same
ones and use as many threads), the torch version, the seed, and the reference label maps with voxelseg's own scorer,
applied to the label maps that each side saved. nnU-Net's minutes are training steps only: planning, preprocessing, the
start and the final prediction come on top, and its learning rate is annealed within them (see
voxelseg/benchmark/nnunet_trainer.py). It augments in the main process, since at batch size 2 a batch takes 0.04 to
0.07 s against 2.6 s for the step: a worker could gain 2 % at most, and would compete with the compute threads for the
cores. For voxelseg the minutes are its `--budget`.

Reported: Dice per contestant and class, and for voxelseg minus each other the mean paired difference of the cases' mean
foreground Dice with its bootstrap interval, and the Wilcoxon signed-rank test. One fold and one seed: the
interval covers the choice of held-out cases, not that of the seed.

A finished contestant is kept: the same command goes on where it stopped, and scores are made again from the saved
label maps. Each record says on which machine, with which versions and at which commit it ran, and the comparison says
where these are not the same. `--label` gives a further voxelseg run its own folder, so that nnU-Net need not train
again.

nnU-Net's environment, made by the script where `--nnunet-env` holds none, is a virtual environment with

    pip install torch==2.13.0
    pip install --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4
    pip install torch==2.13.0 acvl-utils batchgenerators batchgeneratorsv2 blosc2 einops graphviz imagecodecs \
        matplotlib nibabel pandas requests scikit-image scikit-learn scipy seaborn SimpleITK tifffile tqdm yacs

where torch is the version that voxelseg itself runs on. `--no-deps` keeps out timm, and with it torchvision, whose
wheels replace a CPU torch; nnU-Net needs them only for its transformers.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from voxelseg.benchmark.nnunet import NEEDS, PACKAGES, TRAINING_FILE, NNUNetWork, run
from voxelseg.data import Dataset, Split, read_dataset, splits_of
from voxelseg.errors import ConfigError, VoxelsegError
from voxelseg.evaluate import Evaluation, evaluate_pairs
from voxelseg.files import read_json, write_json
from voxelseg.statistics.paired import paired_difference

CONTESTANTS = ("voxelseg", "nnunet", "nnunet_mirror")
FINISHED_FILE = "finished.json"
STEPS_PER_EPOCH = 250
"""Optimiser steps that nnU-Net calls an epoch."""


def make_nnunet_environment(folder: Path, log: Path) -> Path:
    """Python of a virtual environment in `folder` in which nnU-Net can be imported, made if necessary."""
    python = folder.absolute() / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", "import nnunetv2"], capture_output=True).returncode == 0:
        return python
    torch = f"torch=={version('torch').partition('+')[0]}"
    install = [str(python), "-m", "pip", "install"]
    print(f"making nnU-Net's environment in {folder} (log: {log})", flush=True)
    run([sys.executable, "-m", "venv", str(folder)], log)
    run([*install, torch], log)
    run([*install, "--no-deps", *PACKAGES], log)
    run([*install, torch, *NEEDS], log)
    return python


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One comparison: the data, what is equal for all contestants, and where everything lies."""

    dataset: Dataset
    splits: Sequence[Split]
    options: argparse.Namespace

    @property
    def shared(self) -> dict[str, Any]:
        """Settings that all contestants have in common."""
        names = ("fold", "minutes", "threads", "seed")
        held_out = list(self.splits[self.options.fold].validation)
        return {"data": str(self.dataset.root.resolve()), "held_out": held_out} | {
            name: getattr(self.options, name) for name in names
        }

    @property
    def thread_environment(self) -> dict[str, str]:
        """Environment of a subprocess, with the number of threads."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return dict(os.environ) | dict.fromkeys(names, str(self.options.threads))

    def folder(self, contestant: str) -> Path:
        """Where a contestant's run lies."""
        out: Path = self.options.out
        return out / (self.options.label or self.options.model) if contestant == "voxelseg" else out / contestant

    def finish(self, contestant: str) -> dict[str, Any]:
        """Record of the contestant's finished run; runs it unless that has been done with the same settings."""
        folder = self.folder(contestant)
        settings = self.shared | (
            {"model": self.options.model, "set": self.options.set}
            if contestant == "voxelseg"
            else {
                "batch_size": self.options.nnunet_batch_size,
                "mirroring": contestant == "nnunet_mirror",
                "epochs_cap": self.options.epochs_cap,
            }
        )
        if (folder / FINISHED_FILE).is_file():
            record: dict[str, Any] = read_json(folder / FINISHED_FILE)
            changed = [name for name, value in settings.items() if record["settings"].get(name) != value]
            if changed:
                raise ConfigError(
                    f"{folder}: was run with other settings ({', '.join(changed)}). Choose another --out or --label, "
                    "or remove the folder to run it again."
                )
            print(f"{contestant}: kept from {folder}", flush=True)
            return record
        print(f"{contestant}: running in {folder} (log: {folder / 'log.txt'})", flush=True)
        where = machine()  # before the run, which takes the code as it is now
        record = self.run_voxelseg(folder) if contestant == "voxelseg" else self.run_nnunet(folder, settings)
        record = {"settings": settings, "machine": where, **record}
        write_json(folder / FINISHED_FILE, record)
        return record

    def run_voxelseg(self, folder: Path) -> dict[str, Any]:
        """Train with voxelseg; a run that was stopped goes on."""
        options = self.options
        command = [sys.executable, "-m", "voxelseg", "train", str(options.data), "--out", str(folder / "run")]
        command += ["--model", options.model, "--fold", str(options.fold), "--budget", f"{options.minutes:g}m"]
        command += ["--seed", str(options.seed), "--device", "cpu"]
        for setting in options.set:
            command += ["--set", setting]
        seconds = run(command, folder / "log.txt", self.thread_environment)
        fold = folder / "run" / f"fold_{options.fold}"
        events = map(json.loads, (fold / "log.jsonl").read_text().splitlines())
        end = [event for event in events if event["event"] == "end"][-1]
        return {
            "wall_seconds": seconds,
            "predictions": str((fold / "validation").relative_to(folder)),
            "command": command,
            "steps": end["step"],
            "training_seconds": end["elapsed_s"],
            "seconds_per_step": end["elapsed_s"] / end["step"],
        }

    def run_nnunet(self, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Train with nnU-Net from the start, after preparing its data once."""
        options = self.options
        work = NNUNetWork(
            python=make_nnunet_environment(options.nnunet_env, options.out / "nnunet_environment.log"),
            folder=options.out.absolute() / "nnunet_data",
            dataset=self.dataset,
            threads=options.threads,
        )
        work.prepare(self.splits, options.out / "nnunet_data.log")
        steps = ["--steps", str(options.epochs_cap * STEPS_PER_EPOCH)] if options.epochs_cap else []
        arguments = ["--minutes", str(options.minutes), "--batch-size", str(options.nnunet_batch_size), *steps]
        arguments += ["--seed", str(options.seed), "--mirroring" if settings["mirroring"] else "--no-mirroring"]
        began = time.monotonic()
        results, workers = folder / "results", options.nnunet_workers
        found = work.train(options.fold, results, folder / "log.txt", arguments=arguments, workers=workers)
        return {
            "wall_seconds": time.monotonic() - began,
            "predictions": str((found / "validation").relative_to(folder)),
            "arguments": arguments,
            **read_json(found / TRAINING_FILE),
        }

    def score(self, contestant: str, predictions: str) -> Evaluation:
        """Scores of the saved label maps of exactly the held-out cases; written beside them."""
        folder, ending = self.folder(contestant), self.dataset.file_ending
        label_of = {case.id: case.label for case in self.dataset.cases}
        pairs = [
            (case, folder / predictions / f"{case}{ending}", label)
            for case in self.splits[self.options.fold].validation
            if (label := label_of[case]) is not None
        ]
        return evaluate_pairs(pairs, folder / "scores", labels=self.dataset.labels, workers=self.options.threads)


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, system and versions."""
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {
        "processor": processors[0].partition(":")[2].strip() if processors else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "nnunetv2": PACKAGES[0].partition("==")[2],
        "commit": commit or None,
    }


def compare(benchmark: Benchmark, contestants: Sequence[str]) -> None:
    """Run or keep each contestant, score all, print both sides and write comparison.json."""
    records = {contestant: benchmark.finish(contestant) for contestant in contestants}
    scores = {name: benchmark.score(name, record["predictions"]) for name, record in records.items()}
    dice = {name: evaluation.case_means("dice") for name, evaluation in scores.items()}
    others = [name for name in contestants if "voxelseg" in contestants and name != "voxelseg"]
    ours = benchmark.folder("voxelseg").name
    differences = {f"{ours} minus {name}": paired_difference(dice["voxelseg"], dice[name]) for name in others}
    print_results(benchmark, records, scores)
    for pair, found in differences.items():
        print(
            f"{pair}: {found.mean:+.4f}, 95 % interval [{found.low:+.4f}, {found.high:+.4f}], "
            f"Wilcoxon p = {found.wilcoxon_p:.2g}; "
            f"better in {found.num_better}, worse in {found.num_worse} of {found.num_cases} cases"
        )
    results = {
        benchmark.folder(name).name: {**record, "mean": scores[name].summary()["mean"], "dice": dice[name]}
        for name, record in records.items()
    }
    path = benchmark.options.out / "comparison.json"
    compared = {pair: asdict(found) for pair, found in differences.items()}
    write_json(path, {"scored_on": machine(), "contestants": results, "differences": compared})
    print(f"wrote {path}")


def print_results(
    benchmark: Benchmark, records: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Evaluation]
) -> None:
    """Print what was equal and where it was not, then a table with one line per contestant."""
    options, classes = benchmark.options, benchmark.dataset.labels.names
    print(
        f"\n{benchmark.dataset.name}, fold {options.fold}, {len(benchmark.splits[options.fold].validation)} held-out "
        f"cases, {options.minutes:g} min on {options.threads} threads, seed {options.seed}"
    )
    ran_on = {benchmark.folder(name).name: record.get("machine") or {} for name, record in records.items()}
    for key in ("processor", "torch", "commit"):
        print(f"{key}: {one_or_each({name: where.get(key) for name, where in ran_on.items()})}")
    rows = [["", "Dice", *(f"Dice {name}" for name in classes), "HD95 mm", "steps", "s per step", "min", "wall min"]]
    for name, evaluation in scores.items():
        record = records[name]
        by_class = [evaluation.spread("dice", each).mean for each in classes]
        rows.append(
            [
                benchmark.folder(name).name,
                *(f"{value:.4f}" for value in (np.nanmean(list(evaluation.case_means("dice").values())), *by_class)),
                f"{evaluation.mean('hd95_mm'):.2f}",
                str(record["steps"]),
                f"{record['seconds_per_step']:.2f}",
                f"{record['training_seconds'] / 60:.1f}",
                f"{record['wall_seconds'] / 60:.1f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *cells in rows:
        print("  ".join([first.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))


def one_or_each(values: Mapping[str, Any]) -> str:
    """What all contestants share, or what each of them has, in words."""
    words = {name: str(value or "unknown") for name, value in values.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "not the same: " + ", ".join(f"{name} {word}" for name, word in words.items())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line. Raises ConfigError if they contradict each other or the machine."""
    parser = argparse.ArgumentParser(
        description="Compare voxelseg with nnU-Net v2 on one fold: same cases, cores and minutes."
    )
    parser.add_argument("data", type=Path, help="data set in any layout that voxelseg reads")
    parser.add_argument("--out", type=Path, required=True, help="folder for all runs; the same command goes on there")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=25.0, help="training time of each contestant")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads of each contestant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help="comma-separated; default: all")
    parser.add_argument("--model", default="mednext_s", help="voxelseg's network")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting for voxelseg train")
    parser.add_argument("--label", help="folder name of the voxelseg run below --out; default: the model's name")
    parser.add_argument("--nnunet-env", type=Path, help="nnU-Net's environment; default: nnunet_env below --out")
    parser.add_argument("--nnunet-batch-size", type=int, default=2)
    parser.add_argument("--nnunet-workers", type=int, default=0, help="augmentation processes; 0: the main process")
    parser.add_argument("--epochs-cap", type=int, help="stop nnU-Net, annealed, after this many epochs of 250 steps")
    options = parser.parse_args(arguments)
    options.nnunet_env = options.nnunet_env or options.out / "nnunet_env"
    options.contestants = options.contestants.split(",")
    unknown = [name for name in options.contestants if name not in CONTESTANTS]
    if unknown:
        raise ConfigError(f"unknown contestants {unknown}. Choose from {', '.join(CONTESTANTS)}.")
    if (options.label or options.model) in (*CONTESTANTS[1:], "nnunet_data", "nnunet_env"):
        raise ConfigError(f"--label {options.label or options.model} is a folder of nnU-Net's. Choose another --label.")
    if not options.minutes > 0:
        raise ConfigError(f"--minutes must be positive, got {options.minutes}.")
    available = len(os.sched_getaffinity(0))
    if not 1 <= options.threads <= available:
        raise ConfigError(f"--threads must be from 1 to {available}, the cores of this machine, got {options.threads}.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 2 after a message on what the user can mend."""
    try:
        options = parse(arguments)
        dataset = read_dataset(options.data)
        splits = splits_of(dataset)
        if not 0 <= options.fold < len(splits):
            raise ConfigError(f"--fold must be from 0 to {len(splits) - 1}, got {options.fold}.")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])  # subprocesses inherit it
        compare(Benchmark(dataset=dataset, splits=splits, options=options), options.contestants)
    except VoxelsegError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command keeps what is finished and goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Do kernels that grow on the way (UpKern) beat large kernels from scratch after the same time?

    python benchmarks/upkern.py DATA --out DIR --minutes 30 --seeds 0,1 --width 16 --jobs 2 --threads 1

Arms, all of them one MedNeXt with the same settings, folds and patches, trained and scored by `voxelseg train`:

- `grown`: kernels of 3 voxels, interpolated to 5 after the share `--grow-share` of the length, then trained on with a
  fresh optimizer and schedule;
- `scratch`: kernels of 5 voxels from the start;
- `small`: kernels of 3 voxels to the end (not among the default arms).

Equal is the time of the training, its running validation included (`--minutes`), in which small kernels take more
steps; or with `--steps` instead the number of steps. The plan is made once, for the large kernels. In the paper each
stage has the whole length of a training: that is `--steps` of twice the length for `grown` alone, another question.

Reported: mean foreground Dice of the held-out cases by arm and seed, with the steps that were taken, and for each pair
of arms the mean difference over the cases, each of which counts with its mean over the seeds, with a percentile
bootstrap interval over the cases and the Wilcoxon signed-rank test. The interval covers the choice of cases; how far
seeds differ is in the table.

With `--jobs 2` the arms of a seed run side by side, on equal terms: a process and as many threads each. Nothing else
may use the cores. A finished training is kept, and one that was interrupted goes on: the same command goes on where it
stopped, and seeds, folds and arms may be added.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from against_nnunet import machine, run
from sparse_training import Dice, differences

from voxelseg.data import read_dataset, splits_of
from voxelseg.errors import ConfigError, VoxelsegError
from voxelseg.evaluate import read_evaluation
from voxelseg.files import read_json, write_json
from voxelseg.train.log import LOG_FILE, read_log

ARMS = ("grown", "scratch", "small")
SMALL, LARGE = 3, 5
"""Voxels of a kernel along each axis, as in the paper."""
FINISHED_FILE = "finished.json"
SETTINGS_FILE = "settings.json"
LONGEST_EPOCH = 250


class Benchmark:
    """The trainings below one folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        """ConfigError if the folder holds trainings with other settings."""
        self.options = options
        self.work = options.out / "work"
        shared = {
            "data": str(options.data.absolute()),
            "model": options.model,
            "settings": self._settings(),
            "minutes": options.minutes,
            "grow_share": options.grow_share,
            "threads": options.threads,
        }
        record = options.out / SETTINGS_FILE
        if record.is_file() and read_json(record) != shared:
            raise ConfigError(f"{options.out} holds trainings with other settings ({record}). Choose another --out.")
        write_json(record, shared)

    def _settings(self) -> list[str]:
        """Of all arms."""
        options = self.options
        settings = [f"train.threads={options.threads}"]
        if options.steps is not None:
            longest = min(options.steps // 2, LONGEST_EPOCH)
            steps = next(count for count in range(longest, 0, -1) if options.steps % count == 0)
            settings += [f"train.steps_per_epoch={steps}", f"train.epochs={options.steps // steps}"]
        settings += [f"model.width={options.width}"] if options.width else []
        settings += [f"plan.patch_size=[{options.patch}]"] if options.patch else []
        settings += [f"plan.batch_size={options.batch}"] if options.batch else []
        return settings + list(options.set)

    def arm_settings(self, arm: str) -> list[str]:
        """Of one arm."""
        if arm == "grown":
            return [f"train.grow_kernel=[{SMALL},{LARGE}]", f"train.grow_share={self.options.grow_share}"]
        return [f"model.kernel_size={LARGE if arm == 'scratch' else SMALL}"]

    def folder(self, arm: str, seed: int) -> Path:
        """Of a run."""
        return Path(self.options.out) / f"{arm}_seed{seed}"

    def prepare(self) -> None:
        """Plan for the large kernels and preprocess, once for all."""
        options, ready, log = self.options, self.work / FINISHED_FILE, self.options.out / "prepare.log"
        if ready.is_file():
            return
        print(f"planning and preprocessing in {self.work} (log: {log})", flush=True)
        planning = ["plan", str(options.data), "--out", str(self.work), "--model", options.model, "--device", "cpu"]
        decisive = [setting for setting in self._settings() if setting.startswith(("plan.", "model."))]
        run(_voxelseg(*planning, *_set([*decisive, *self.arm_settings("scratch")])), log)
        run(_voxelseg("preprocess", str(self.work)), log)
        write_json(ready, {"machine": machine()})

    def finish(self, arm: str, seed: int, fold: int) -> None:
        """Train what is left of one fold of one arm."""
        options, folder = self.options, self.folder(arm, seed)
        done = folder / f"fold_{fold}" / FINISHED_FILE
        if done.is_file():
            return
        command = ["train", str(options.data), "--out", str(folder), "--work", str(self.work)]
        command += ["--model", options.model, "--fold", str(fold), "--seed", str(seed), "--device", options.device]
        command += [] if options.minutes is None else ["--budget", f"{options.minutes:g}m"]
        command += _set([*self._settings(), *self.arm_settings(arm)])
        log = options.out / f"{folder.name}_fold{fold}.log"
        print(f"{folder.name}, fold {fold} (log: {log})", flush=True)
        wall_s = run(_voxelseg(*command), log, {**os.environ, "OMP_NUM_THREADS": str(options.threads)})
        write_json(done, {"wall_seconds": wall_s, "machine": machine()})

    def finish_all(self) -> None:
        """Train whatever is missing, several at a time; a failure is raised when what was begun has ended."""
        options = self.options
        todo = [(arm, seed, fold) for seed in options.seeds for fold in options.folds for arm in options.arms]
        with ThreadPoolExecutor(options.jobs) as pool:
            futures = [pool.submit(self.finish, *one) for one in todo]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def dice(self, arm: str, seed: int) -> Dice:
        """Of all held-out cases of all folds."""
        folds = [self.folder(arm, seed) / f"fold_{fold}" / "validation" for fold in self.options.folds]
        return {case: value for fold in folds for case, value in read_evaluation(fold).case_means("dice").items()}

    def facts(self, arm: str, seed: int) -> dict[str, float]:
        """Seconds and steps of the training, and steps with small kernels, as means over the folds."""
        found = []
        for fold in self.options.folds:
            epochs = [
                event
                for event in read_log(self.folder(arm, seed) / f"fold_{fold}" / LOG_FILE)
                if event["event"] == "epoch"
            ]
            small = [one["step"] for one in epochs if arm == "small" or one.get("stage") == f"kernel {SMALL}"]
            last = epochs[-1]
            found.append({"steps": last["step"], "small_steps": max(small, default=0), "seconds": last["elapsed_s"]})
        return {name: fmean(one[name] for one in found) for name in found[0]}


def _voxelseg(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "voxelseg", *arguments]


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def table(dice: Mapping[str, Mapping[int, Dice]], facts: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """A line per arm: mean Dice of each seed and of all, steps, those of them with small kernels, seconds."""
    seeds = list(next(iter(dice.values())))
    rows = [["arm", *(f"seed {seed}" for seed in seeds), "mean", "steps", "with k3", "seconds"]]
    for arm, by_seed in dice.items():
        means = [fmean(by_seed[seed].values()) for seed in seeds]
        average = {name: fmean(one[name] for one in facts[arm].values()) for name in facts[arm][seeds[0]]}
        counts = [f"{average[name]:.0f}" for name in ("steps", "small_steps", "seconds")]
        rows.append([arm, *(f"{value:.4f}" for value in (*means, fmean(means))), *counts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def compare(benchmark: Benchmark) -> dict[str, Any]:
    """Print the table and the differences of finished trainings; returns both for the record."""
    options = benchmark.options
    dice = {arm: {seed: benchmark.dice(arm, seed) for seed in options.seeds} for arm in options.arms}
    facts = {arm: {seed: benchmark.facts(arm, seed) for seed in options.seeds} for arm in options.arms}
    length = f"{options.steps} steps" if options.minutes is None else f"{options.minutes:g} minutes"
    cases = len(next(iter(dice[options.arms[0]].values())))
    print(
        f"\n{options.model}, {length} for each arm, folds {options.folds}, {cases} held-out cases; mean foreground "
        f"Dice\n{table(dice, facts)}"
    )
    found = differences(dice)
    for pair, by_seed in found.items():
        for which, one in by_seed.items():
            print(
                f"{pair}, {which}: {one.mean:+.4f}, 95 % interval [{one.low:+.4f}, {one.high:+.4f}], "
                f"Wilcoxon p = {one.wilcoxon_p:.2g}, {one.num_better} of {one.num_cases} cases better"
            )
    compared = {pair: {which: asdict(one) for which, one in by_seed.items()} for pair, by_seed in found.items()}
    return {"dice": dice, "facts": facts, "differences": compared, "scored_on": machine()}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line; ConfigError if they are impossible."""
    parser = argparse.ArgumentParser(description="MedNeXt with kernels that grow against large ones from scratch.")
    parser.add_argument("data", type=Path, help="data set in any layout that voxelseg reads")
    parser.add_argument("--out", type=Path, required=True, help="folder for all runs; the same command goes on there")
    parser.add_argument("--arms", default="grown,scratch", help=f"comma-separated, of {', '.join(ARMS)}")
    parser.add_argument("--folds", default="0", help="comma-separated")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="of each training")
    length.add_argument("--steps", type=int, help="of each training, instead of equal time")
    parser.add_argument("--grow-share", type=float, default=0.5, help="of the length, before the kernels grow")
    parser.add_argument("--model", default="mednext_s")
    parser.add_argument("--width", type=int, default=16, help="channels at full resolution; 32 as published")
    parser.add_argument("--patch", help="D,H,W; default: the plan's")
    parser.add_argument("--batch", type=int, help="patches per step; default: the plan's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of all arms")
    options = parser.parse_args(arguments)
    options.arms = options.arms.split(",")
    unknown = [arm for arm in options.arms if arm not in ARMS]
    if unknown:
        raise ConfigError(f"unknown arms {unknown}. Choose from {', '.join(ARMS)}.")
    try:
        options.folds, options.seeds = (
            [int(one) for one in text.split(",")] for text in (options.folds, options.seeds)
        )
    except ValueError as error:
        raise ConfigError(f"--folds and --seeds are whole numbers such as 0,1: {error}.") from error
    wrong = [name for name in ("jobs", "threads") if getattr(options, name) < 1]
    if wrong:
        raise ConfigError(f"--{wrong[0]} must be at least 1, got {getattr(options, wrong[0])}.")
    if options.steps is not None and options.steps < 2:
        raise ConfigError(f"--steps must be at least 2, one for each kernel, got {options.steps}.")
    if options.minutes is not None and not options.minutes > 0:
        raise ConfigError(f"--minutes must be positive, got {options.minutes}.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 2 after a message on what the user can mend."""
    try:
        options = parse(arguments)
        number = len(splits_of(read_dataset(options.data)))
        if not all(0 <= fold < number for fold in options.folds):
            raise ConfigError(f"--folds must be from 0 to {number - 1}, got {options.folds}.")
        benchmark = Benchmark(options)
        benchmark.prepare()
        benchmark.finish_all()
        results = compare(benchmark)
        write_json(options.out / "comparison.json", results)
        print(f"wrote {options.out / 'comparison.json'}")
    except VoxelsegError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command keeps what is finished and goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

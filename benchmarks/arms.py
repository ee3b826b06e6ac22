"""What benchmarks of training methods share: arms trained by `voxelseg train` with several seeds, compared by case.

An arm is a way to train. For every arm, seed and fold there is one training; all of them have the same plan, the same
preprocessed cases and the same settings but for those of the arm. What is finished is kept, so that the same command
goes on where it stopped, and seeds, folds and arms may be added.

Reported are the mean foreground Dice of the held-out cases by arm and seed, and for each pair of arms the mean
difference over the cases, each of which counts with its mean over the seeds, with a bootstrap interval over
the cases and the Wilcoxon signed-rank test; the same for each seed alone. An interval covers the choice of cases: how
far seeds differ is in the table.
"""

import argparse
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from against_nnunet import machine

from voxelseg.benchmark.nnunet import run
from voxelseg.data import read_dataset, splits_of
from voxelseg.errors import ConfigError, VoxelsegError
from voxelseg.evaluate import read_evaluation
from voxelseg.files import read_json, write_json
from voxelseg.statistics.paired import PairedDifference, difference_in_words, paired_over_seeds
from voxelseg.train.loop.log import LOG_FILE, read_log

FINISHED_FILE = "finished.json"
SETTINGS_FILE = "settings.json"
LONGEST_EPOCH = 250
Dice = dict[str, float]
"""Mean foreground Dice by held-out case."""


class Benchmark(ABC):
    """The trainings below one folder; a script says what its arms are, and what it reports of each."""

    columns: ClassVar[Mapping[str, str]]
    """Of the table: title and format of each of the `facts`."""

    def __init__(self, options: argparse.Namespace) -> None:
        """ConfigError if the folder holds trainings with other settings."""
        self.options = options
        self.work = options.out / "work"
        shared = {"data": str(options.data.absolute()), **self.record()}
        record = options.out / SETTINGS_FILE
        if record.is_file() and read_json(record) != shared:
            raise ConfigError(f"{options.out} holds trainings with other settings ({record}). Choose another --out.")
        write_json(record, shared)

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What must be the same for all trainings in the folder."""

    @abstractmethod
    def settings(self) -> list[str]:
        """Of all arms, as `voxelseg train --set` takes them."""

    @abstractmethod
    def arm_settings(self, arm: str) -> list[str]:
        """Of one arm."""

    @abstractmethod
    def training_facts(self, arm: str, events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """What the log of a finished training says, by title of `columns`."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The network of all arms."""

    @property
    def length(self) -> list[str]:
        """Options of `voxelseg train` for a length that is not among the settings."""
        return []

    def chosen_settings(self) -> list[str]:
        """Those that follow from the options that all scripts have."""
        options = self.options
        settings = [f"model.width={options.width}"] if options.width else []
        settings += [f"plan.patch_size=[{options.patch}]"] if options.patch else []
        settings += [f"plan.batch_size={options.batch}"] if options.batch else []
        return settings + list(options.set)

    def folder(self, arm: str, seed: int) -> Path:
        """Of a run."""
        return Path(self.options.out) / f"{arm}_seed{seed}"

    def prepare(self, arm: str | None = None) -> None:
        """Plan, for the network of `arm` if that matters, and preprocess, once for all."""
        ready, log = self.work / FINISHED_FILE, self.options.out / "prepare.log"
        if ready.is_file():
            return
        print(f"planning and preprocessing in {self.work} (log: {log})", flush=True)
        planning = ["plan", str(self.options.data), "--out", str(self.work), "--model", self.model, "--device", "cpu"]
        decisive = [setting for setting in self.settings() if setting.startswith(("plan.", "model."))]
        run(_voxelseg(*planning, *_set([*decisive, *([] if arm is None else self.arm_settings(arm))])), log)
        run(_voxelseg("preprocess", str(self.work)), log)
        write_json(ready, {"machine": machine()})

    def finish(self, arm: str, seed: int, fold: int) -> None:
        """Train what is left of one fold of one arm."""
        options, folder = self.options, self.folder(arm, seed)
        done = folder / f"fold_{fold}" / FINISHED_FILE
        if done.is_file():
            return
        command = ["train", str(options.data), "--out", str(folder), "--work", str(self.work), "--model", self.model]
        command += ["--fold", str(fold), "--seed", str(seed), "--device", options.device, *self.length]
        command += _set([*self.settings(), *self.arm_settings(arm), f"train.threads={options.threads}"])
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
        """What the logs of a run say, as means over the folds."""
        logs = [read_log(self.folder(arm, seed) / f"fold_{fold}" / LOG_FILE) for fold in self.options.folds]
        found = [self.training_facts(arm, events) for events in logs]
        return {name: fmean(one[name] for one in found) for name in self.columns}

    def compare(self, title: str) -> dict[str, Any]:
        """Print the table and the differences of finished trainings; returns both for the record."""
        options = self.options
        dice = {arm: {seed: self.dice(arm, seed) for seed in options.seeds} for arm in options.arms}
        facts = {arm: {seed: self.facts(arm, seed) for seed in options.seeds} for arm in options.arms}
        cases = len(next(iter(dice[options.arms[0]].values())))
        print(f"\n{title}, folds {options.folds}, {cases} held-out cases; mean foreground Dice")
        print(table(dice, facts, self.columns))
        print("Intervals are over the cases; how far seeds differ is in the table.")
        found = differences(dice)
        for pair, by_seed in found.items():
            for which, one in by_seed.items():
                print(f"{pair}, {which}: {_in_words(one)}")
        compared = {pair: {which: asdict(one) for which, one in by_seed.items()} for pair, by_seed in found.items()}
        return {"dice": dice, "facts": facts, "differences": compared, "scored_on": machine()}


def epochs_of(steps: int, *, longest: int = LONGEST_EPOCH) -> list[str]:
    """Settings for a length of exactly so many steps, in equal epochs of at most `longest` steps."""
    size = next(count for count in range(min(steps, longest), 0, -1) if steps % count == 0)
    return [f"train.steps_per_epoch={size}", f"train.epochs={steps // size}"]


def differences(dice: Mapping[str, Mapping[int, Dice]]) -> dict[str, dict[str, PairedDifference]]:
    """For each pair of arms: over all seeds together, and for each seed."""
    return {f"{one} minus {other}": paired_over_seeds(dice[one], dice[other]) for one, other in combinations(dice, 2)}


def table(
    dice: Mapping[str, Mapping[int, Dice]],
    facts: Mapping[str, Mapping[int, Mapping[str, float]]],
    columns: Mapping[str, str],
) -> str:
    """A line per arm: mean Dice of each seed and of all, then the facts, as means over the seeds, in their formats."""
    seeds = list(next(iter(dice.values())))
    rows = [["arm", *(f"seed {seed}" for seed in seeds), "mean", *columns]]
    for arm, by_seed in dice.items():
        means = [fmean(by_seed[seed].values()) for seed in seeds]
        values = {name: fmean(one[name] for one in facts[arm].values()) for name in columns}
        cells = [f"{value:.4f}" for value in (*means, fmean(means))]
        rows.append([arm, *cells, *(f"{values[name]:{format_}}" for name, format_ in columns.items())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _in_words(one: PairedDifference) -> str:
    return (
        f"{difference_in_words(one)} (95 % interval), Wilcoxon p = {one.wilcoxon_p:.2g}, "
        f"{one.num_better} of {one.num_cases} cases better"
    )


def _voxelseg(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "voxelseg", *arguments]


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def add_options(parser: argparse.ArgumentParser, *, arms: str, known: Collection[str], seeds: str, width: int) -> None:
    """Options of all scripts; `arms`, `seeds` and `width` are the defaults."""
    parser.add_argument("data", type=Path, help="data set in any layout that voxelseg reads")
    parser.add_argument("--out", type=Path, required=True, help="folder for all runs; the same command goes on there")
    parser.add_argument("--arms", default=arms, help=f"comma-separated, of {', '.join(known)}")
    parser.add_argument("--folds", default="0", help="comma-separated")
    parser.add_argument("--seeds", default=seeds, help="comma-separated")
    parser.add_argument("--width", type=int, default=width, help="channels at full resolution; fewer than published")
    parser.add_argument("--patch", help="D,H,W; default: the plan's")
    parser.add_argument("--batch", type=int, help="patches per step; default: the plan's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of all arms")


def check_options(options: argparse.Namespace, known: Collection[str]) -> argparse.Namespace:
    """`options` with lists of arms, folds and seeds; ConfigError if they are impossible."""
    options.arms = options.arms.split(",")
    unknown = [arm for arm in options.arms if arm not in known]
    if unknown:
        raise ConfigError(f"unknown arms {unknown}. Choose from {', '.join(known)}.")
    try:
        options.folds, options.seeds = (
            [int(one) for one in text.split(",")] for text in (options.folds, options.seeds)
        )
    except ValueError as error:
        raise ConfigError(f"--folds and --seeds are whole numbers such as 0,1: {error}.") from error
    for name in ("arms", "folds", "seeds"):
        if len(set(getattr(options, name))) < len(getattr(options, name)):
            raise ConfigError(f"--{name} names something twice: {getattr(options, name)}.")
    wrong = [name for name in ("jobs", "threads") if getattr(options, name) < 1]
    if wrong:
        raise ConfigError(f"--{wrong[0]} must be at least 1, got {getattr(options, wrong[0])}.")
    return options


def run_script(parse: Callable[[], argparse.Namespace], work: Callable[[argparse.Namespace], dict[str, Any]]) -> int:
    """Exit code of a script that compares arms: 0, or 2 after a message on what the user can mend.

    `work` trains what is missing and returns the results, which are written.
    """
    try:
        options = parse()
        number = len(splits_of(read_dataset(options.data)))
        if not all(0 <= fold < number for fold in options.folds):
            raise ConfigError(f"--folds must be from 0 to {number - 1}, got {options.folds}.")
        results = work(options)
        write_json(options.out / "comparison.json", results)
        print(f"wrote {options.out / 'comparison.json'}")
    except VoxelsegError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command keeps what is finished and goes on", file=sys.stderr)
        return 130
    return 0

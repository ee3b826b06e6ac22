"""What do E2ENet's sparse fusion kernels cost in accuracy, and does moving them help?

    python benchmarks/sparse_training.py DATA --out DIR --steps 3000 --seeds 0,1 --width 16 --jobs 2 --threads 1

Arms, all of them E2ENet with the same settings, steps, seeds and folds, trained and scored by `voxelseg train`:

- `dynamic`: of each layer that fuses, the share `--sparsity` of the kernels is inactive, and the active ones move to
  where random ones are drawn;
- `static`: the same at the start, and the active kernels stay;
- `gradient`: as dynamic, to where the gradients are largest (not among the default arms);
- `dense`: all kernels are active.

With one seed, dynamic, static and gradient start from the same weights and masks, and dense from the same weights where
a kernel is active in the others; all of them see the same patches.

Reported: mean foreground Dice of the held-out cases by arm and seed, and for each pair of arms the mean difference over
the cases, each of which counts with its mean over the seeds, with a percentile bootstrap interval over the cases and
the Wilcoxon signed-rank test. The interval covers the choice of cases; how far seeds differ is in the table.

A finished training is kept, and one that was interrupted goes on: the same command goes on where it stopped, and seeds,
folds and arms may be added. On a CPU the same command gives the same numbers. The trainings take the cores they are
given: seconds per step say something only with one job on idle cores.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from against_nnunet import PairedDifference, machine, paired_difference, run

from voxelseg.data import read_dataset, splits_of
from voxelseg.errors import ConfigError, VoxelsegError
from voxelseg.evaluate import read_evaluation
from voxelseg.files import read_json, write_json
from voxelseg.train.log import LOG_FILE, read_log

ARMS = {
    "dynamic": (),
    "static": ("sparse.freeze_topology=true",),
    "gradient": ("sparse.growth=gradient",),
    "dense": ("sparse.sparsity=0",),
}
"""Settings of each, besides the sparsity."""
FINISHED_FILE = "finished.json"
SETTINGS_FILE = "settings.json"
LONGEST_EPOCH = 250
Dice = dict[str, float]
"""Mean foreground Dice by held-out case."""


class Benchmark:
    """The trainings below one folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        """ConfigError if the folder holds trainings with other settings."""
        self.options = options
        self.work = options.out / "work"
        shared = {"data": str(options.data.absolute()), "settings": self._settings(), "sparsity": options.sparsity}
        record = options.out / SETTINGS_FILE
        if record.is_file() and read_json(record) != shared:
            raise ConfigError(f"{options.out} holds trainings with other settings ({record}). Choose another --out.")
        write_json(record, shared)

    def _settings(self) -> list[str]:
        """Of all arms."""
        options = self.options
        steps = next(count for count in range(min(options.steps, LONGEST_EPOCH), 0, -1) if options.steps % count == 0)
        settings = [f"train.steps_per_epoch={steps}", f"train.epochs={options.steps // steps}"]
        settings += [f"model.width={options.width}"] if options.width else []
        settings += [f"plan.patch_size=[{options.patch}]"] if options.patch else []
        settings += [f"plan.batch_size={options.batch}"] if options.batch else []
        return settings + list(options.set)

    def folder(self, arm: str, seed: int) -> Path:
        """Of a run."""
        return Path(self.options.out) / f"{arm}_seed{seed}"

    def prepare(self) -> None:
        """Plan and preprocess, once for all."""
        ready, log = self.work / FINISHED_FILE, self.options.out / "prepare.log"
        if ready.is_file():
            return
        print(f"planning and preprocessing in {self.work} (log: {log})", flush=True)
        planning = ["plan", str(self.options.data), "--out", str(self.work), "--model", "e2enet", "--device", "cpu"]
        decisive = [setting for setting in self._settings() if setting.startswith(("plan.", "model."))]
        run(_voxelseg(*planning, *_set(decisive)), log)
        run(_voxelseg("preprocess", str(self.work)), log)
        write_json(ready, {"machine": machine()})

    def finish(self, arm: str, seed: int, fold: int) -> None:
        """Train what is left of one fold of one arm."""
        options, folder = self.options, self.folder(arm, seed)
        done = folder / f"fold_{fold}" / FINISHED_FILE
        if done.is_file():
            return
        sparsity = [] if arm == "dense" else [f"sparse.sparsity={options.sparsity}"]
        moves = arm in ("dynamic", "gradient") and options.update_every
        settings = [*self._settings(), *sparsity, *ARMS[arm], f"train.threads={options.threads}"]
        settings += [f"sparse.update_every={options.update_every}"] if moves else []
        command = ["train", str(options.data), "--out", str(folder), "--work", str(self.work), "--model", "e2enet"]
        command += ["--fold", str(fold), "--seed", str(seed), "--device", options.device, *_set(settings)]
        log = options.out / f"{folder.name}_fold{fold}.log"
        print(f"{folder.name}, fold {fold} (log: {log})", flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        wall_s = run(_voxelseg(*command), log, environment)
        write_json(done, {"wall_seconds": wall_s, "machine": machine()})

    def finish_all(self) -> None:
        """Train whatever is missing, several at a time; a failure is raised when what was begun has ended."""
        todo = [
            (arm, seed, fold) for seed in self.options.seeds for fold in self.options.folds for arm in self.options.arms
        ]
        with ThreadPoolExecutor(self.options.jobs) as pool:
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
        """Seconds per step, updates of the topology and how often each active kernel moved, as means over the folds."""
        found = []
        for fold in self.options.folds:
            events = read_log(self.folder(arm, seed) / f"fold_{fold}" / LOG_FILE)
            last = [event for event in events if event["event"] == "epoch"][-1]
            states = [event for event in events if event["event"] == "topology"]
            active = sum(count for count, _ in states[-1]["layers"].values()) if states else 0
            found.append(
                {
                    "seconds_per_step": last["elapsed_s"] / last["step"],
                    "updates": sum(state["moved"] > 0 for state in states),
                    "moves_per_kernel": sum(state["moved"] for state in states) / active if active else 0.0,
                }
            )
        return {name: fmean(one[name] for one in found) for name in found[0]}


def _voxelseg(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "voxelseg", *arguments]


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def over_seeds(by_seed: Sequence[Mapping[str, float]]) -> Dice:
    """Mean of each case over the seeds, in which the cases are the same."""
    return {case: fmean(one[case] for one in by_seed) for case in by_seed[0]}


def differences(dice: Mapping[str, Mapping[int, Dice]]) -> dict[str, dict[str, PairedDifference]]:
    """For each pair of arms: over all seeds together, and for each seed."""
    found = {}
    for one, other in combinations(dice, 2):
        seeds = {f"seed {seed}": paired_difference(dice[one][seed], dice[other][seed]) for seed in dice[one]}
        all_seeds = paired_difference(*(over_seeds(list(dice[arm].values())) for arm in (one, other)))
        found[f"{one} minus {other}"] = {"all seeds": all_seeds, **seeds}
    return found


def table(dice: Mapping[str, Mapping[int, Dice]], facts: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """A line per arm: mean Dice of each seed and of all, updates, moves per active kernel, seconds per step."""
    seeds = list(next(iter(dice.values())))
    rows = [["arm", *(f"seed {seed}" for seed in seeds), "mean", "updates", "moves per kernel", "s per step"]]
    for arm, by_seed in dice.items():
        means = [fmean(by_seed[seed].values()) for seed in seeds]
        average = {name: fmean(one[name] for one in facts[arm].values()) for name in facts[arm][seeds[0]]}
        cells = [f"{value:.4f}" for value in (*means, fmean(means))]
        cells += [f"{average['updates']:g}", f"{average['moves_per_kernel']:.2f}", f"{average['seconds_per_step']:.3f}"]
        rows.append([arm, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def compare(benchmark: Benchmark) -> dict[str, Any]:
    """Print the table and the differences of finished trainings; returns both for the record."""
    options = benchmark.options
    dice = {arm: {seed: benchmark.dice(arm, seed) for seed in options.seeds} for arm in options.arms}
    facts = {arm: {seed: benchmark.facts(arm, seed) for seed in options.seeds} for arm in options.arms}
    cases = len(next(iter(dice[options.arms[0]].values())))
    print(
        f"\nE2ENet, sparsity {options.sparsity}, {options.steps} steps, folds {options.folds}, {cases} held-out cases; "
        f"mean foreground Dice\n{table(dice, facts)}"
    )
    found = differences(dice)
    for pair, by_seed in found.items():
        for which, one in by_seed.items():
            print(
                f"{pair}, {which}: {one.mean:+.4f}, 95 % interval [{one.low:+.4f}, {one.high:+.4f}], "
                f"Wilcoxon p = {one.wilcoxon_p:.2g}"
            )
    compared = {pair: {which: asdict(one) for which, one in by_seed.items()} for pair, by_seed in found.items()}
    return {"dice": dice, "facts": facts, "differences": compared, "scored_on": machine()}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line; ConfigError if they are impossible."""
    parser = argparse.ArgumentParser(description="E2ENet with moving, fixed and dense fusion kernels on one data set.")
    parser.add_argument("data", type=Path, help="data set in any layout that voxelseg reads")
    parser.add_argument("--out", type=Path, required=True, help="folder for all runs; the same command goes on there")
    parser.add_argument("--arms", default="dynamic,static,dense", help=f"comma-separated, of {', '.join(ARMS)}")
    parser.add_argument("--folds", default="0", help="comma-separated")
    parser.add_argument("--seeds", default="0,1", help="comma-separated")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--sparsity", type=float, default=0.8, help="of dynamic, static and gradient")
    parser.add_argument("--update-every", type=int, help="steps between two moves; default: from the length")
    parser.add_argument("--width", type=int, default=16, help="channels at full resolution; 48 as published")
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
    if not 0 < options.sparsity < 1:
        raise ConfigError(f"--sparsity must be between 0 and 1, got {options.sparsity}.")
    wrong = [name for name in ("steps", "jobs", "threads") if getattr(options, name) < 1]
    if wrong:
        raise ConfigError(f"--{wrong[0]} must be at least 1, got {getattr(options, wrong[0])}.")
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

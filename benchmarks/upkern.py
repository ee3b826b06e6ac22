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

What is reported, and what is kept, says arms.py; here the steps that were taken, too. With `--jobs 2` the arms of a
seed run side by side, on equal terms: a process and as many threads each. Nothing else may use the cores.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from arms import LONGEST_EPOCH, Benchmark, add_options, check_options, epochs_of, run_script

from voxelseg.errors import ConfigError

ARMS = ("grown", "scratch", "small")
SMALL, LARGE = 3, 5
"""Voxels of a kernel along each axis, as in the paper."""


class UpKern(Benchmark):
    """MedNeXt with kernels that grow, and with kernels that do not."""

    columns: ClassVar[dict[str, str]] = {"steps": ".0f", f"with k{SMALL}": ".0f", "seconds": ".0f"}

    @property
    def model(self) -> str:
        """The size of MedNeXt."""
        return str(self.options.model)

    @property
    def length(self) -> list[str]:
        """The time, if that is what is equal."""
        return [] if self.options.minutes is None else ["--budget", f"{self.options.minutes:g}m"]

    def record(self) -> dict[str, Any]:
        """Settings of all arms, and what decides how far a training comes in its time."""
        options = self.options
        named = {name: getattr(options, name) for name in ("model", "minutes", "grow_share", "threads")}
        return {"settings": self.settings(), **named}

    def settings(self) -> list[str]:
        """Of all arms; the epochs are two at least, one for each size of the kernels."""
        steps = self.options.steps
        length = [] if steps is None else epochs_of(steps, longest=min(steps // 2, LONGEST_EPOCH))
        return [*length, *self.chosen_settings()]

    def arm_settings(self, arm: str) -> list[str]:
        """Of one arm."""
        if arm == "grown":
            return [f"train.grow_kernel=[{SMALL},{LARGE}]", f"train.grow_share={self.options.grow_share}"]
        return [f"model.kernel_size={LARGE if arm == 'scratch' else SMALL}"]

    def training_facts(self, arm: str, events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Steps, those of them with small kernels, and seconds of the training."""
        epochs = [event for event in events if event["event"] == "epoch"]
        small = [one["step"] for one in epochs if arm == "small" or one.get("stage") == f"kernel {SMALL}"]
        found = (epochs[-1]["step"], max(small, default=0), epochs[-1]["elapsed_s"])
        return dict(zip(self.columns, found, strict=True))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line; ConfigError if they are impossible."""
    parser = argparse.ArgumentParser(description="MedNeXt with kernels that grow against large ones from scratch.")
    add_options(parser, arms="grown,scratch", known=ARMS, seeds="0", width=16)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="of each training")
    length.add_argument("--steps", type=int, help="of each training, instead of equal time")
    parser.add_argument("--grow-share", type=float, default=0.5, help="of the length, before the kernels grow")
    parser.add_argument("--model", default="mednext_s")
    options = check_options(parser.parse_args(arguments), ARMS)
    if options.steps is not None and options.steps < 2:
        raise ConfigError(f"--steps must be at least 2, one for each kernel, got {options.steps}.")
    if options.minutes is not None and not options.minutes > 0:
        raise ConfigError(f"--minutes must be positive, got {options.minutes}.")
    if not 0 < options.grow_share < 1:
        raise ConfigError(f"--grow-share must be between 0 and 1, got {options.grow_share}.")
    return options


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """Results of the arms, trained as far as they were not."""
    benchmark = UpKern(options)
    benchmark.prepare("scratch")
    benchmark.finish_all()
    length = f"{options.steps} steps" if options.minutes is None else f"{options.minutes:g} minutes"
    return benchmark.compare(f"{options.model}, {length} for each arm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command."""
    return run_script(lambda: parse(arguments), compared)


if __name__ == "__main__":
    sys.exit(main())

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

What is reported, and what is kept, says arms.py. On a CPU the same command gives the same numbers. The trainings take
the cores they are given: seconds per step say something only with one job on idle cores.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from arms import Benchmark, add_options, check_options, epochs_of, run_script

from voxelseg.errors import ConfigError

ARMS = {
    "dynamic": (),
    "static": ("sparse.freeze_topology=true",),
    "gradient": ("sparse.growth=gradient",),
    "dense": ("sparse.sparsity=0",),
}
"""Settings of each, besides the sparsity."""


class SparseTraining(Benchmark):
    """E2ENet with moving, fixed and dense fusion kernels."""

    columns: ClassVar[dict[str, str]] = {"updates": "g", "moves per kernel": ".2f", "s per step": ".3f"}
    model = "e2enet"

    def record(self) -> dict[str, Any]:
        """Settings of all arms, the sparsity, and how often kernels move if that is set."""
        every = self.options.update_every
        moving = {} if every is None else {"update_every": every}
        return {"settings": self.settings(), "sparsity": self.options.sparsity, **moving}

    def settings(self) -> list[str]:
        """Of all arms."""
        return [*epochs_of(self.options.steps), *self.chosen_settings()]

    def arm_settings(self, arm: str) -> list[str]:
        """Of one arm."""
        options = self.options
        sparsity = [] if arm == "dense" else [f"sparse.sparsity={options.sparsity}"]
        moves = arm in ("dynamic", "gradient") and options.update_every is not None
        return [*sparsity, *ARMS[arm], *([f"sparse.update_every={options.update_every}"] if moves else [])]

    def training_facts(self, arm: str, events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Updates of the topology, how often each active kernel moved on average, and seconds per step."""
        last = [event for event in events if event["event"] == "epoch"][-1]
        states = [event for event in events if event["event"] == "topology"]
        active = sum(count for count, _ in states[-1]["layers"].values()) if states else 0
        moved = sum(state["moved"] for state in states)
        return {
            "updates": sum(state["moved"] > 0 for state in states),
            "moves per kernel": moved / active if active else 0.0,
            "s per step": last["elapsed_s"] / last["step"],
        }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line; ConfigError if they are impossible."""
    parser = argparse.ArgumentParser(description="E2ENet with moving, fixed and dense fusion kernels on one data set.")
    add_options(parser, arms="dynamic,static,dense", known=ARMS, seeds="0,1", width=16)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--sparsity", type=float, default=0.8, help="of dynamic, static and gradient")
    parser.add_argument("--update-every", type=int, help="steps between two moves; default: from the length")
    options = check_options(parser.parse_args(arguments), ARMS)
    if not 0 < options.sparsity < 1:
        raise ConfigError(f"--sparsity must be between 0 and 1, got {options.sparsity}.")
    if options.steps < 1:
        raise ConfigError(f"--steps must be at least 1, got {options.steps}.")
    return options


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """Results of the arms, trained as far as they were not."""
    benchmark = SparseTraining(options)
    benchmark.prepare()
    benchmark.finish_all()
    return benchmark.compare(f"E2ENet, sparsity {options.sparsity}, {options.steps} steps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command."""
    return run_script(lambda: parse(arguments), compared)


if __name__ == "__main__":
    sys.exit(main())

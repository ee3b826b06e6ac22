"""What a training must remember to go on, and the file that keeps it.

Everything that the weights depend on besides the configuration is here: with a length in steps, a training that was
killed at any moment and continued ends with the bits of one that was not (on a CPU, or in deterministic mode).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxelseg.errors import CheckpointError, memory_ran_out
from voxelseg.files import atomic_path, write_error

STATE_FILE = "training_state.pt"


@dataclass
class Counters:
    """How far a training is."""

    step: int = 0
    """Steps done, also those that loss scaling skipped."""
    epoch: int = 0
    """The one in work, from 0."""
    stopped_early: bool = False
    """The running validation has not become better for long enough."""
    elapsed_s: float = 0.0
    """Since the start, without the time between an interruption and its continuation."""
    time_is_up: bool = False
    """No further step fits into the budget."""
    loss_sum: float = 0.0
    """Of this epoch's steps."""
    loss_count: int = 0
    overflows: int = 0
    """Steps in a row until now whose loss or gradients were not finite."""
    validation_s: float = 0.0
    """All running validations together."""
    longest_validation_s: float = 0.0
    """The longest of them, or what the next one will take if that is more."""
    patch_s: float | None = None
    """One patch in the fastest of them."""
    saving_s: float = 0.0
    """The longest time that saving the state took."""
    saving_best_s: float = 0.0
    """The longest time that saving the best weights took."""
    score: float | None = None
    """Of the last running validation: more is better."""


def random_states(device: torch.device) -> dict[str, Any]:
    """Where the global generators stand: of torch, and of Python and NumPy, from which networks of others may draw."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the one that others use
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the global generators to where they stood."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state`, without any code in it, atomically; VoxelsegError if that fails."""
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise write_error(path, error) from error


def read_state(path: Path, restore: Callable[[dict[str, Any]], None]) -> bool:
    """Call `restore` with the state in `path`; False if there is none, CheckpointError if it does not fit.

    An error of memory that ran out is passed on: the state is good.
    """
    if not path.is_file():
        return False
    try:
        # Not to the GPU, which would then hold the state twice.
        restore(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load meets damage with many kinds of exception
        if memory_ran_out(error):
            raise
        reason = f"{type(error).__name__}: {''.join(str(error).splitlines()[:1])}"
        raise CheckpointError(
            f"{path}: damaged, or of another model ({reason}). Delete {path.parent} to train again."
        ) from error
    return True

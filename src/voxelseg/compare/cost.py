"""What a contestant costs: its network, a patch's time and memory, and its training; each None where unknown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from voxelseg.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Measured and counted costs of one contestant."""

    parameters: int | None = None
    """Numbers in the weights, without those of deep-supervision heads."""
    macs: int | None = None
    """Multiply-accumulates of a prediction of one patch, in convolutions, linear layers and attention products."""
    patch_size: tuple[int, ...] | None = None
    """Voxels (D, H, W) of the patch that macs, latency and memory are for."""
    batch_size: int | None = None
    """Patches of a training step."""
    latency_s: float | None = None
    """Median seconds of a prediction of one patch."""
    peak_memory_bytes: int | None = None
    """Most that a prediction of one patch held, the network's weights included, beyond what the process held before."""
    training_memory_bytes: int | None = None
    """The same of training steps: weights, gradients, optimizer and activations."""
    step_s: float | None = None
    """Seconds of a training step, without the making of its batch."""
    training_s: float | None = None
    """Seconds of training, running validation included: mean over the trainings."""
    steps: float | None = None
    """Optimizer steps: mean over the trainings."""
    seconds_per_case: float | None = None
    """Of the prediction of a held-out scan, from reading it to writing its label map: mean over the cases."""
    device: str | None = None
    """On which time and memory were measured."""
    threads: int | None = None
    """Of the CPU, with which they were measured."""
    notes: tuple[str, ...] = ()
    """How it was measured, and what could not be."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cost":
        """The cost that `to_dict` gave; DataError for other keys, so that no number is lost under a wrong name."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise DataError(f"cost: unknown {', '.join(unknown)}. Known: {', '.join(sorted(known))}.")
        found = dict(values)
        for name in ("patch_size", "notes"):
            if found.get(name) is not None:
                found[name] = tuple(found[name])
        return cls(**found)

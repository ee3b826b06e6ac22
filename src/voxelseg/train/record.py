"""The record of a training in its folder: what made it, and whether another call means the same training."""

import platform
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from voxelseg.errors import ConfigError
from voxelseg.version import __version__

_LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "blosc2", "batchgeneratorsv2")
MAY_CHANGE = (
    "config.train.workers",
    "config.train.threads",
    "config.train.tensorboard",
    "plan.notes",
)
"""What another call may set otherwise for a training that is there: the weights depend on it by rounding at most."""
_MOST_LISTED = 6


def made_with(device: torch.device) -> dict[str, Any]:
    """The command that runs now, the time, the versions of everything, and the device."""
    return {
        "command": shlex.join(["voxelseg", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "voxelseg": __version__,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "device": _device_name(device),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({', '.join([*_processor(), f'{torch.get_num_threads()} threads'])})"


def _processor() -> list[str]:
    """Model of the CPU; nothing where the system does not say it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return [value.strip()]
    return [found] if (found := platform.processor()) else []


def differences(
    stored: Any, wanted: Any, *, may_change: Collection[str] = MAY_CHANGE, ordered: Collection[str] = (), path: str = ""
) -> list[str]:
    """What differs between two records, in words, but for the paths that `may_change`.

    Of mappings at the paths that are `ordered` the order counts, too.
    """
    if path in may_change:
        return []
    if path in ordered and stored == wanted and list(stored) != list(wanted):
        return [f"{path} was in the order {', '.join(stored)}, now {', '.join(wanted)}"]
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        return [
            difference
            for key in sorted({*stored, *wanted})
            for difference in differences(
                stored.get(key),
                wanted.get(key),
                may_change=may_change,
                ordered=ordered,
                path=f"{path}.{key}" if path else key,
            )
        ]
    return [] if stored == wanted else [f"{path} was {stored!r}, now {wanted!r}"]


def refuse_others(folder: Path, differing: Sequence[str]) -> None:
    """ConfigError that names what is `differing` in the training that `folder` holds, if anything is."""
    if not differing:
        return
    more = f"; and {len(differing) - _MOST_LISTED} more" if len(differing) > _MOST_LISTED else ""
    raise ConfigError(
        f"{folder}: holds a run with other settings ({'; '.join(differing[:_MOST_LISTED])}{more}). "
        "Choose another --out, or the same settings to continue it."
    )

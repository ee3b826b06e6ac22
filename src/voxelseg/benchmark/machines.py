"""Which device each training of a benchmark had, and what a reader must know where these differ."""

import re
from contextlib import suppress

from voxelseg.benchmark.design import Cell, Design
from voxelseg.benchmark.nnunet import TRAINING_FILE
from voxelseg.compare.sources import RUN_FILE
from voxelseg.errors import DataError
from voxelseg.files import read_json

_THREADS = re.compile(r", \d+ threads| \(\d+ threads\)")
_KINDS = ("", "cpu", "cuda")
"""What says no more than the kind: it may be the same device as another of that kind."""


def unequal_devices(design: Design) -> list[str]:
    """A sentence that says which contestant was trained on which device; nothing if all had the same, as far as known.

    A training counts for the device that it began on.
    """
    found: dict[str, dict[str, None]] = {}
    for cell in design.cells:
        device = _device_of(design, cell) if design.outcome(cell) is not None else ""
        if device not in _KINDS:
            found.setdefault(cell.entrant.name, {})[device] = None
    if len({device for devices in found.values() for device in devices}) < 2:
        return []
    on: dict[str, list[str]] = {}
    for name, devices in found.items():
        on.setdefault(" and ".join(devices), []).append(name)
    who = "; ".join(f"{', '.join(names)} on {devices}" for devices, names in on.items())
    in_minutes = (
        f"Not equal: {who}. A quicker device makes more steps of the same minutes, so that differences may be the "
        "devices', not the contestants'."
    )
    in_steps = f"Trained on different devices: {who}. Steps are equal all the same; times are not comparable."
    return [in_minutes if design.length.in_minutes else in_steps]


def _device_of(design: Design, cell: Cell) -> str:
    """Name of the device without its number of threads; empty if it was not noted."""
    folder = design.cell_folder(cell)
    for path in (folder / RUN_FILE, folder / f"fold_{cell.fold}" / TRAINING_FILE):
        with suppress(DataError, AttributeError):
            return _THREADS.sub("", str(read_json(path).get("device", "")))
    return ""

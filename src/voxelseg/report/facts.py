"""What the report says about data set, plan and provenance: pairs of a name and a text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from voxelseg.report.run import SECTIONS, Run

Facts = list[tuple[str, str]]

_AXES = ("inferior–superior", "posterior–anterior", "left–right")
"""Names of canonical D, H, W."""
_SIZES = {"spacing_mm", "shape", "patch_size", "median_shape", "strides", "kernels", "kernel_size"}
"""Keys of lists along D, H, W."""
_RANGES = {"window", "noise_std", "blur_sigma", "low_resolution_zoom"}
"""Keys of a lowest and a highest value, beside those that say so."""
_TITLES = {
    "spacing_mm": "Spacing (mm)",
    "patch_size": "Patch",
    "batch_size": "Batch size",
    "median_shape": "Median shape",
    "mirror_axes": "Mirrored axes",
    "voxelseg": "voxelseg",
    "std": "SD",
}


def duration(seconds: float) -> str:
    """Such as "1 h 02 min", "3 h", "12 min 30 s" or "45 s"; a dash for NaN."""
    if math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min" if minutes_left else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    return f"{rest} s"


def text_of(value: Any, key: str = "") -> str:
    """The JSON value of `key` for a reader: sizes as 32 × 64 × 48, ranges as 0.7 to 1.4, seconds as a duration."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and key.endswith("_s"):
        return duration(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text_of(item, name)}" for name, item in value.items() if item is not None) or "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            return "none"
        if all(isinstance(item, int | float) for item in value):
            return _separator(key).join(text_of(item) for item in value)
        return "; ".join(text_of(item, key) for item in value)
    return str(value)


def _separator(key: str) -> str:
    if key in _SIZES:
        return " × "
    return " to " if key in _RANGES or key.endswith("_range") else ", "


def title_of(key: str) -> str:
    """A key of a JSON file as a heading."""
    return _TITLES.get(key, key.replace("_", " ").capitalize())


def dataset_facts(run: Run) -> Facts:
    """Name, layout, cases, channels, classes, spacings and shapes."""
    dataset = run.info.get("dataset") or {}
    facts = [(title_of(key), text_of(dataset[key])) for key in ("name", "layout", "root") if key in dataset]
    if "num_cases" in dataset:
        facts.append(("Cases", text_of(dataset["num_cases"])))
    if dataset.get("channels"):
        facts.append(("Channels", ", ".join(dataset["channels"])))
    labels = dataset.get("labels") or {}
    if labels.get("classes"):
        facts.append(("Classes", ", ".join(_class_text(one) for one in labels["classes"])))
    if labels.get("ignore") is not None:
        facts.append(("Ignore label", str(labels["ignore"])))
    cases = ((run.info.get("fingerprint") or {}).get("cases") or {}).values()
    facts += _range_facts(
        "Voxel spacing D × H × W (mm)", [case["spacing_mm"] for case in cases if "spacing_mm" in case]
    )
    facts += _range_facts("Shape D × H × W", [case["shape"] for case in cases if "shape" in case])
    return facts


def _class_text(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({' + '.join(str(value) for value in one['values'])})"


def _range_facts(title: str, triples: Sequence[Sequence[float]]) -> Facts:
    if not triples:
        return []
    low, median, high = np.percentile(np.asarray(triples, dtype=float), [0, 50, 100], axis=0).tolist()
    smallest, middle, largest = (text_of(sizes, "shape") for sizes in (low, median, high))
    return [(title, middle if low == high else f"median {middle}, from {smallest} to {largest}")]


def plan_facts(run: Run) -> tuple[Facts, list[str]]:
    """Every value of the plan, and the notes that say why."""
    plan = run.info.get("plan") or {}
    channels = plan.get("channels") or []
    facts: Facts = []
    for key, value in plan.items():
        if key in ("channels", "notes"):
            continue
        if key == "axes":
            facts.append(("Axes D, H, W", ", ".join(_axis_name(axis) for axis in value)))
        elif key == "mirror_axes":
            names = ", ".join(f"{'DHW'[axis]} ({_axis_name((plan.get('axes') or (0, 1, 2))[axis])})" for axis in value)
            facts.append((title_of(key), names or "none"))
        elif key == "normalization" and len(channels) == len(value):
            facts += [(f"Normalization of {name}", text_of(one)) for name, one in zip(channels, value, strict=True)]
        else:
            facts.append((title_of(key), text_of(value, key)))
    return facts, [str(note) for note in plan.get("notes") or ()]


def _axis_name(canonical: int) -> str:
    return _AXES[canonical]


def config_facts(run: Run) -> Facts:
    """Every configuration value under its dotted key, as `--set` takes it."""
    return list(config_entries(run.info.get("config") or {}))


def config_entries(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Every value of nested objects under its dotted key, as text."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from config_entries(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", text_of(item, key)


def provenance_facts(run: Run) -> Facts:
    """Command, time, versions, seed, device and whatever else run.json records."""
    facts = []
    for key, value in run.info.items():
        if key == "versions" and isinstance(value, Mapping):
            facts.append(("Libraries", ", ".join(f"{name} {version}" for name, version in value.items())))
        elif key not in SECTIONS:
            facts.append((title_of(key), text_of(value)))
    return facts + [(f"Fold {fold.name} started from", _origin(fold.transfer)) for fold in run.folds if fold.transfer]


def _origin(transfer: Mapping[str, Any]) -> str:
    """Where the first weights of a fold came from, how much of them was taken, and what to beware of."""
    counted = transfer.get("part", "weights")  # a run of before there was pre-training does not say
    taken = f"{transfer['path']} ({transfer['what']}), {transfer['share']:.1%} of the {counted} without heads"
    remarks = (*transfer["warnings"], *transfer.get("notes", ()))
    return ". ".join((taken, *(remark.removesuffix(".") for remark in remarks))) + "."

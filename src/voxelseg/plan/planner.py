"""Rules that turn a fingerprint into a plan; docs/how-to/planning.md lists them with their numbers.

Spacing, normalisation, batch size and the U-Net's topology follow nnU-Net (Isensee et al., Nature Methods 2021,
Supplementary Note 2, and its plain 3D U-Net planner). Unlike nnU-Net, a patch is as near to a cube in millimetres as
the scans and the network's divisor allow, mirroring is decided from the data, and every value can be fixed beforehand:
the ones that follow from it are then derived from the fixed value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.data.dataset import is_ct
from voxelseg.errors import ConfigError, DataError
from voxelseg.geometry import Shape, Spacing
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Normalization, Plan

ANISOTROPY = 3.0
"""An axis is coarse if its spacing is more than this many times the next coarsest."""
COARSE_PERCENTILE = 10.0
"""Percentile of the spacings that a coarse axis is resampled to; other axes take the median."""
CROPPED_SHARE = 0.75
"""Scans that keep less than this share of their voxels when cropped to non-zero are normalised inside it."""
CONSISTENT_ORDER = 0.9
"""Share of cases in which two classes must lie in one order for it to be a fact about the anatomy."""
MIN_CASES_FOR_ORDER = 8
"""With fewer cases an order may be chance: it counts only for classes that lie beside each other."""
BESIDE = 0.5
"""Classes lie beside each other if their centroids are further apart than this share of their joint spread."""
MIN_FEATURE_MAP = 4
"""The U-Net does not halve an axis below this many voxels."""
BATCH_SHARE = 0.05
"""A batch shows at most this share of the data set's voxels."""

_AXIS_NAMES = ("inferior-superior", "posterior-anterior", "left-right")
_ENDS = (("inferior", "superior"), ("posterior", "anterior"), ("left", "right"))

Float = npt.NDArray[np.float64]
Levels = tuple[Shape, ...]


@dataclass(frozen=True, kw_only=True)
class PlanLimits:
    """What the network and the machine allow."""

    divisor: Callable[[Levels, Levels], Sequence[int]] = field(default=lambda strides, kernels: _product(strides))
    """Multiple that each axis of a patch must be, given the strides and kernels that the planner finds for a patch."""
    voxels_per_step: int = 600_000
    """Voxels of all patches of one training step together."""
    min_batch_size: int = 2
    max_batch_size: int = 32

    def __post_init__(self) -> None:
        if self.voxels_per_step < 1 or not 1 <= self.min_batch_size <= self.max_batch_size:
            raise ConfigError(f"impossible plan limits: {self}. Raise the memory budget or correct the batch sizes.")


def make_plan(
    fingerprint: Fingerprint, limits: PlanLimits | None = None, overrides: Mapping[str, Any] | None = None
) -> Plan:
    """Plan for the data that `fingerprint` describes, within `limits`.

    `overrides` are plan keys whose values are fixed; a fixed patch may exceed the limits. ConfigError names an unknown
    key or an impossible value, or says that even the smallest patch exceeds the limits. DataError if the fingerprint
    holds no case. Without classes nothing tells whether mirroring is harmless: no axis is mirrored.
    """
    limits, overrides = limits or PlanLimits(), overrides or {}
    if not fingerprint.cases:
        raise DataError("the fingerprint holds no case. Measure a data set with at least one scan.")
    plan = _derive(fingerprint, limits, {})
    if overrides:
        checked = plan.changed(**overrides)
        fixed = {key: getattr(checked, key) for key in overrides}
        plan = _derive(fingerprint, limits, fixed).changed(**fixed)
    voxels = plan.batch_size * prod(plan.patch_size)
    if voxels > limits.voxels_per_step and "patch_size" not in overrides:
        raise ConfigError(
            f"{limits.voxels_per_step} voxels fit into a training step, but a batch of {plan.batch_size} of the "
            f"smallest patch, {' x '.join(map(str, plan.patch_size))}, has {voxels}. Raise the memory budget "
            "(--memory-gb), or choose a smaller network or batch."
        )
    return plan


def override_plan(plan: Plan, fingerprint: Fingerprint, overrides: Mapping[str, Any]) -> Plan:
    """`plan` with some values replaced and no others; the notes are those of the result.

    `fingerprint` is the one that the plan was made for. ConfigError names an unknown key or an impossible value.
    """
    changed = plan.changed(**overrides)
    if not overrides or "notes" in overrides:
        return changed
    by_hand = [key for key in Plan.model_fields if key in overrides or _by_hand(key) in plan.notes]
    ordered = _ordered(fingerprint, changed.axes, changed.spacing_mm)
    notes = (
        *_shape_notes(changed.anisotropic, changed.axes, changed.patch_size, changed.median_shape),
        *(_mirror_notes(changed.axes, ordered, changed.mirror_axes) if fingerprint.classes else ()),
        *map(_by_hand, by_hand),
    )
    return changed.changed(notes=notes)


def fitting_patch(size: Sequence[int], divisor: Sequence[int]) -> Shape:
    """Smallest patch of at least `size` voxels that a network of this `divisor` takes.

    Instance normalisation needs more than one voxel at the lowest resolution: where there is one, the longest axis is
    doubled.
    """
    blocks = [ceil(voxels / step) for voxels, step in zip(size, divisor, strict=True)]
    if prod(blocks) == 1:
        blocks[int(np.argmax(size))] = 2
    return _ints(np.multiply(blocks, divisor))


def _derive(fingerprint: Fingerprint, limits: PlanLimits, fixed: Mapping[str, Any]) -> Plan:
    """Plan whose values follow from each other, except those in `fixed`."""
    cases = list(fingerprint.cases.values())
    spacings = np.array([case.spacing_mm for case in cases])
    crops = fixed.get("crop", "nonzero") == "nonzero"
    sizes = np.array([case.nonzero_shape if crops else case.shape for case in cases], dtype=float)
    target = _target_spacing(spacings, sizes)
    axes: Shape = fixed.get("axes", _coarsest_first(target))
    order = list(axes)
    spacing: Spacing = fixed.get("spacing_mm", _floats(np.round(target[order], 6)))  # headers hold 1.4 as 1.39999998
    anisotropic: bool = fixed.get("anisotropic", spacing[0] > ANISOTROPY * max(spacing[1:]))
    zoom = 1.0 if fixed.get("resampling") == "none" else spacings[:, order] / np.asarray(spacing)
    resampled = np.maximum(np.round(sizes[:, order] * zoom), 1)
    median_shape: Shape = fixed.get("median_shape", _ints(np.round(np.median(resampled, axis=0))))
    smallest_batch: int = fixed.get("batch_size", limits.min_batch_size)
    largest_patch = limits.voxels_per_step // smallest_batch
    patch: Shape = fixed.get("patch_size", _patch_size(median_shape, spacing, limits, largest_patch))
    strides, kernels = _topology(patch, spacing)
    batch: int = fixed.get("batch_size", _batch_size(patch, float(resampled.prod(axis=1).sum()), limits))
    ordered = _ordered(fingerprint, axes, spacing)
    harmless = tuple(axis for axis in range(3) if fingerprint.classes and not ordered[axis])
    mirror: tuple[int, ...] = fixed.get("mirror_axes", harmless)
    return Plan(
        channels=fingerprint.channels,
        axes=axes,
        spacing_mm=spacing,
        anisotropic=anisotropic,
        normalization=tuple(_normalization(fingerprint, channel) for channel in range(len(fingerprint.channels))),
        patch_size=patch,
        batch_size=batch,
        mirror_axes=mirror,
        median_shape=median_shape,
        strides=strides,
        kernels=kernels,
        notes=(
            *_shape_notes(anisotropic, axes, patch, median_shape),
            *_size_notes(batch * prod(patch), limits),
            *(_mirror_notes(axes, ordered, mirror) if fingerprint.classes else ()),
            *(_by_hand(key) for key in fixed if key != "notes"),
        ),
    )


def _ints(values: npt.ArrayLike) -> Shape:
    d, h, w = (int(value) for value in np.asarray(values))
    return (d, h, w)


def _floats(values: npt.ArrayLike) -> Spacing:
    d, h, w = (float(value) for value in np.asarray(values))
    return (d, h, w)


def _target_spacing(spacings: Float, sizes: Float) -> Float:
    """Spacing along the canonical axes: the median, and finer along an axis with few and thick slices."""
    target: Float = np.median(spacings, axis=0)
    size = np.median(sizes, axis=0)
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    thick = target[coarsest] > ANISOTROPY * max(target[others])
    few = size[coarsest] * ANISOTROPY < min(size[others])
    if thick and few:
        target[coarsest] = max(np.percentile(spacings[:, coarsest], COARSE_PERCENTILE), max(target[others]))
    return target


def _coarsest_first(target: Float) -> Shape:
    """Canonical axes in the plan's order: as they are, unless another than the first is coarse."""
    coarsest = int(np.argmax(target))
    rest = [axis for axis in range(3) if axis != coarsest]
    if target[coarsest] > ANISOTROPY * max(target[rest]):
        return (coarsest, rest[0], rest[1])
    return (0, 1, 2)


def _patch_size(median_shape: Shape, spacing: Spacing, limits: PlanLimits, most_voxels: int) -> Shape:
    """The median scan, cut down along whichever axis is longest in mm until it has at most `most_voxels`."""
    wanted = list(median_shape)
    patch = _fitting(wanted, spacing, limits)
    while prod(patch) > most_voxels and max(wanted) > 1:
        lengths = [size * mm if size > 1 else 0.0 for size, mm in zip(wanted, spacing, strict=True)]
        wanted[int(np.argmax(lengths))] -= 1
        patch = _fitting(wanted, spacing, limits)
    return patch


def _fitting(size: list[int], spacing: Spacing, limits: PlanLimits) -> Shape:
    """Smallest patch of at least `size` voxels that the network takes."""
    divisor = limits.divisor(*_topology(_ints(size), spacing))
    if prod(divisor) == 1:  # too small to be halved at all
        size = [max(voxels, 2 * MIN_FEATURE_MAP) for voxels in size]
        divisor = limits.divisor(*_topology(_ints(size), spacing))
    return fitting_patch(size, divisor)


def _product(strides: Levels) -> Shape:
    return _ints(np.prod(strides, axis=0))


def _batch_size(patch: Shape, total_voxels: float, limits: PlanLimits) -> int:
    fits = limits.voxels_per_step // prod(patch)
    share = int(BATCH_SHARE * total_voxels / prod(patch))
    return int(np.clip(min(fits, share), limits.min_batch_size, limits.max_batch_size))


def _topology(patch: Shape, spacing: Spacing) -> tuple[Levels, Levels]:
    """Stride and kernel of each level of the U-Net.

    An axis is halved while both halves keep 4 voxels and its spacing is below twice the finest of these axes; a single
    remaining axis only if it has 12. A kernel has length 3 along an axis from the level on where its spacing is below
    twice the finest, and along all axes at the lowest level; else 1.
    """
    size, current = list(patch), list(spacing)
    strides: list[Shape] = [(1, 1, 1)]
    kernels: list[Shape] = []
    kernel = [1, 1, 1]
    while True:
        large = [axis for axis in range(3) if size[axis] >= 2 * MIN_FEATURE_MAP]
        finest = min((current[axis] for axis in large), default=0.0)
        halved = [axis for axis in large if current[axis] < 2 * finest]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * MIN_FEATURE_MAP):
            break
        kernel = [3 if kernel[axis] == 3 or current[axis] < 2 * min(current) else 1 for axis in range(3)]
        kernels.append(_ints(kernel))
        strides.append(_ints([2 if axis in halved else 1 for axis in range(3)]))
        for axis in halved:
            size[axis] = ceil(size[axis] / 2)
            current[axis] *= 2
    return tuple(strides), (*kernels, (3, 3, 3))


def _ordered(fingerprint: Fingerprint, axes: Shape, spacing: Spacing) -> list[list[tuple[str, str]]]:
    """The ordered pairs of classes along each of the plan's axes."""
    return [_ordered_pairs(fingerprint, axes[axis], spacing[axis]) for axis in range(3)]


def _ordered_pairs(fingerprint: Fingerprint, axis: int, spacing_mm: float) -> list[tuple[str, str]]:
    """Pairs of classes that lie along the canonical `axis` in one order, first the lower one.

    The median distance is at least a voxel. An order that few cases share may be chance, as among the parts of a
    tumour; it counts if the classes lie beside, not within each other.
    """
    cases = list(fingerprint.cases.values())
    places = _per_case_and_class([case.class_centroids_mm for case in cases], fingerprint.classes, axis)
    spreads = _per_case_and_class([case.class_spreads_mm for case in cases], fingerprint.classes, axis)
    pairs = []
    for first, second in combinations(range(len(fingerprint.classes)), 2):
        offsets = places[:, second] - places[:, first]
        both = np.isfinite(offsets)
        if not both.any():
            continue
        offsets, joint_spread = offsets[both], (spreads[:, first] + spreads[:, second])[both]
        middle = float(np.median(offsets))
        agreeing = float(np.mean(np.sign(offsets) == np.sign(middle)))
        if abs(middle) < spacing_mm or agreeing < CONSISTENT_ORDER:
            continue
        if offsets.size >= MIN_CASES_FOR_ORDER or np.median(np.abs(offsets) - BESIDE * joint_spread) > 0:
            lower, upper = (first, second) if middle > 0 else (second, first)
            pairs.append((fingerprint.classes[lower], fingerprint.classes[upper]))
    return pairs


def _per_case_and_class(values: list[dict[str, Spacing]], classes: tuple[str, ...], axis: int) -> Float:
    """(cases, classes): the values along `axis`, NaN where a class does not occur."""
    return np.array([[of_case[name][axis] if name in of_case else np.nan for name in classes] for of_case in values])


def _normalization(fingerprint: Fingerprint, channel: int) -> Normalization:
    """Rule of one channel, by its name as in nnU-Net v2."""
    name = fingerprint.channels[channel].strip().lower()
    if is_ct(name):
        seen = fingerprint.intensities[channel]
        low, high = seen.percentile_00_5, seen.percentile_99_5
        return Normalization(
            kind="ct", window=(low, high if high > low else low + 1.0), mean=seen.mean, std=seen.std or 1.0
        )
    if name in ("nonorm", "none"):
        return Normalization(kind="none")
    if name in ("rescale_to_0_1", "rgb_to_0_1"):
        return Normalization(kind="range_0_1")
    kept = [prod(case.nonzero_shape) / prod(case.shape) for case in fingerprint.cases.values()]
    return Normalization(kind="zscore_nonzero" if np.median(kept) < CROPPED_SHARE else "zscore")


def _shape_notes(anisotropic: bool, axes: Shape, patch: Shape, median_shape: Shape) -> list[str]:
    notes = []
    if anisotropic:
        notes.append(
            f"D is {_AXIS_NAMES[axes[0]]}, more than {ANISOTROPY:g} times coarser than the other axes: it is "
            "resampled by nearest neighbour unless nearest_along_coarse is false, and rotations stay in plane."
        )
    padded = [name for name, size, median in zip("DHW", patch, median_shape, strict=True) if size > median]
    if padded:
        notes.append(
            f"The patch is longer than the median scan along {', '.join(padded)}; scans are padded there by 0."
        )
    return notes


def _size_notes(voxels: int, limits: PlanLimits) -> list[str]:
    if voxels <= limits.voxels_per_step:
        return []
    return [f"A training step holds {voxels} voxels, more than the {limits.voxels_per_step} that it is meant to hold."]


def _by_hand(key: str) -> str:
    return f"{key} was set by hand."


def _mirror_notes(axes: Shape, ordered: list[list[tuple[str, str]]], mirror: tuple[int, ...]) -> list[str]:
    notes = []
    for axis, pairs in enumerate(ordered):
        if not pairs:
            continue
        end = _ENDS[axes[axis]][0]
        listed = ", ".join(f"{first} lies {end} of {second}" for first, second in pairs[:3])
        more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
        against = ", although it is in mirror_axes" if axis in mirror else ""
        notes.append(f"{'DHW'[axis]} ({_AXIS_NAMES[axes[axis]]}) has a direction{against}: {listed}{more}.")
    listed = ", ".join("DHW"[axis] for axis in mirror) or "no axis"
    notes.append(f"Mirrored in training and test-time augmentation: {listed}.")
    return notes

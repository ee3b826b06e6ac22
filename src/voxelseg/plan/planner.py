"""Rules that turn a fingerprint into a plan.

Rules (each number can be overridden):
- Spacing: the median over the cases. An axis is anisotropic if its median spacing is more than 3 times the next
  coarsest axis and its median size is less than a third of theirs; it is then sampled at the 10th percentile of its
  spacings, but never finer than the others, and becomes D (nnU-Net, Isensee et al. 2021, Supplementary Note 2).
- Intensities: a channel called CT is clipped to the 0.5th and 99.5th foreground percentiles and normalised with the
  foreground's global mean and standard deviation; other channels by each scan's own mean and standard deviation, over
  the voxels that are not zero if cropping to these makes the median scan smaller by more than a quarter.
- Patch: as large as the median scan, in multiples of the network's divisor, then the axis that is largest against the
  median size is shortened until two patches fit the voxel budget. Small scans are padded, thin ones get a thin patch.
- Batch: 2, and more while the budget allows and a batch stays below 5 % of the data set's voxels.
- Mirroring: an axis is left out if two classes lie along it in the same order in at least 90 % of the cases and at
  least one voxel apart: mirrored images would teach that front is back or left is right.
- Topology: an axis is halved while its patch size stays at least 8 and its spacing is within a factor 2 of the finest;
  a kernel has length 1 along an axis whose spacing is more than twice the finest (nnU-Net's rule).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from voxelseg.errors import ConfigError
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Normalization, Plan

ANISOTROPY = 3.0
CONSISTENT_ORDER = 0.9
MAX_LEVELS = 6
MIN_BOTTLENECK = 4
Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlanLimits:
    """What the network and the machine allow."""

    divisor: tuple[int, int, int] | None = None
    """Multiple that each axis of a patch must be; None for networks whose strides follow the plan."""
    voxels_per_step: int = 600_000
    """Voxels of all patches of one training step together."""
    min_batch_size: int = 2
    max_batch_size: int = 32

    def __post_init__(self) -> None:
        if self.voxels_per_step < 1 or not 1 <= self.min_batch_size <= self.max_batch_size:
            raise ConfigError(f"impossible plan limits: {self}. Raise the memory budget or correct the batch sizes.")


def make_plan(fingerprint: Fingerprint, limits: PlanLimits | None = None) -> Plan:
    """Plan for the data that `fingerprint` describes within `limits`."""
    limits = limits or PlanLimits()
    cases = list(fingerprint.cases.values())
    spacings = np.array([case.spacing_mm for case in cases])
    shapes = np.array([case.nonzero_shape for case in cases], dtype=float)
    spacing, anisotropic = _target_spacing(spacings, shapes)
    coarsest = int(np.argmax(spacing))
    axes = (coarsest, *(axis for axis in range(3) if axis != coarsest)) if anisotropic else (0, 1, 2)
    order = list(axes)
    spacing = spacing[order]
    resampled = shapes[:, order] * spacings[:, order] / spacing
    median_shape = np.maximum(np.round(np.median(resampled, axis=0)), 1).astype(int)
    total_voxels = float(np.prod(resampled, axis=1).sum())
    step = limits.divisor or (2, 2, 2)
    patch = _patch_size(median_shape, [step[axis] for axis in range(3)], limits)
    if limits.divisor is None:
        strides, kernels = _topology(patch, spacing)
        patch = _rounded_up(patch, np.prod(strides, axis=0))
    else:
        strides, kernels = _topology(patch, spacing)
    batch = _batch_size(patch, total_voxels, limits)
    mirror = tuple(axis for axis in range(3) if not _keeps_order(fingerprint, order[axis], float(spacing[axis])))
    notes = _notes(fingerprint, anisotropic, mirror, patch, median_shape)
    return Plan(
        channels=fingerprint.channels,
        axes=(order[0], order[1], order[2]),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        anisotropic=anisotropic,
        normalization=tuple(_normalization(fingerprint, channel) for channel in range(len(fingerprint.channels))),
        patch_size=_triple(patch),
        batch_size=batch,
        mirror_axes=mirror,
        median_shape=_triple(median_shape),
        strides=strides,
        kernels=kernels,
        notes=notes,
    )


def _triple(values: npt.ArrayLike) -> tuple[int, int, int]:
    d, h, w = (int(value) for value in np.asarray(values))
    return (d, h, w)


def _target_spacing(spacings: Float, shapes: Float) -> tuple[Float, bool]:
    target: Float = np.median(spacings, axis=0)
    size = np.median(shapes, axis=0)
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    coarse = target[coarsest] > ANISOTROPY * max(target[others])
    thin = size[coarsest] * ANISOTROPY < min(size[others])
    if coarse and thin:
        target[coarsest] = max(np.percentile(spacings[:, coarsest], 10), max(target[others]) + 1e-5)
    return target, bool(coarse)


def _rounded_up(sizes: npt.NDArray[np.int_], multiples: npt.ArrayLike) -> npt.NDArray[np.int_]:
    rounded: npt.NDArray[np.int_] = -(-sizes // np.asarray(multiples)) * np.asarray(multiples)
    return rounded


def _patch_size(median_shape: npt.NDArray[np.int_], steps: list[int], limits: PlanLimits) -> npt.NDArray[np.int_]:
    budget = limits.voxels_per_step / limits.min_batch_size
    patch = _rounded_up(median_shape, steps)
    while np.prod(patch) > budget:
        shortened = np.where(patch > steps, patch - steps, patch)
        if (shortened == patch).all():
            break
        relative = np.where(patch > steps, patch / median_shape, -1.0)
        axis = int(np.argmax(np.where(relative < 0, -1.0, relative * (1 + 1e-6 * patch))))
        patch[axis] = shortened[axis]
    return patch


def _batch_size(patch: npt.NDArray[np.int_], total_voxels: float, limits: PlanLimits) -> int:
    patch_voxels = float(np.prod(patch))
    fits = int(limits.voxels_per_step // patch_voxels)
    share = int(0.05 * total_voxels // patch_voxels)
    return int(np.clip(min(fits, share), limits.min_batch_size, limits.max_batch_size))


def _topology(
    patch: npt.NDArray[np.int_], spacing: Float
) -> tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]:
    size, current = patch.astype(float), spacing.copy()
    strides, kernels = [(1, 1, 1)], [_kernel(current)]
    while len(strides) < MAX_LEVELS:
        halvable = (size >= 2 * MIN_BOTTLENECK) & (
            current <= 2 * current[size >= 2 * MIN_BOTTLENECK].min(initial=np.inf)
        )
        if not halvable.any():
            break
        stride = np.where(halvable, 2, 1)
        size, current = np.ceil(size / stride), current * stride
        strides.append(_triple(stride))
        kernels.append(_kernel(current))
    return tuple(strides), tuple(kernels)


def _kernel(spacing: Float) -> tuple[int, int, int]:
    return _triple(np.where(spacing > 2 * spacing.min(), 1, 3))


def _keeps_order(fingerprint: Fingerprint, axis: int, spacing_mm: float) -> bool:
    """Whether two classes lie along the canonical `axis` in one order, a voxel or more apart."""
    return bool(_ordered_pairs(fingerprint, axis, spacing_mm))


def _ordered_pairs(fingerprint: Fingerprint, axis: int, spacing_mm: float) -> list[tuple[str, str]]:
    pairs = []
    for first, second in combinations(fingerprint.classes, 2):
        offsets = np.array(
            [
                case.class_centroids_mm[second][axis] - case.class_centroids_mm[first][axis]
                for case in fingerprint.cases.values()
                if first in case.class_centroids_mm and second in case.class_centroids_mm
            ]
        )
        if offsets.size == 0 or abs(np.median(offsets)) < spacing_mm:
            continue
        agreeing = max(np.mean(offsets > 0), np.mean(offsets < 0))
        if agreeing >= CONSISTENT_ORDER:
            pairs.append((first, second) if np.median(offsets) > 0 else (second, first))
    return pairs


def _normalization(fingerprint: Fingerprint, channel: int) -> Normalization:
    name = fingerprint.channels[channel].strip().lower()
    if name == "ct":
        seen = fingerprint.intensities[channel]
        low, high = seen.percentile_00_5, seen.percentile_99_5
        return Normalization(
            kind="ct", window=(low, high if high > low else low + 1.0), mean=seen.mean, std=max(seen.std, 1e-8)
        )
    if name in ("nonorm", "none"):
        return Normalization(kind="none")
    if name in ("rescale_to_0_1", "rgb_to_0_1"):
        return Normalization(kind="range_0_1")
    ratios = [np.prod(case.nonzero_shape) / np.prod(case.shape) for case in fingerprint.cases.values()]
    return Normalization(kind="zscore_nonzero" if np.median(ratios) < 0.75 else "zscore")


def _notes(
    fingerprint: Fingerprint,
    anisotropic: bool,
    mirror: tuple[int, ...],
    patch: npt.NDArray[np.int_],
    median_shape: npt.NDArray[np.int_],
) -> tuple[str, ...]:
    names = ("inferior-superior", "posterior-anterior", "left-right")
    notes = []
    if anisotropic:
        notes.append("One axis is more than 3 times coarser than the others: it is D, resampled by nearest neighbour.")
    for axis in range(3):
        pairs = _ordered_pairs(fingerprint, axis, min(case.spacing_mm[axis] for case in fingerprint.cases.values()))
        if pairs:
            listed = ", ".join(f"{first} before {second}" for first, second in pairs[:3])
            notes.append(f"Not mirrored along {names[axis]}: {listed}{', ...' if len(pairs) > 3 else ''}.")
    if not mirror:
        notes.append("No axis is mirrored, in training and at prediction.")
    if (patch > median_shape).any():
        notes.append("The patch is larger than the median scan along some axis; scans are padded there.")
    return tuple(notes)

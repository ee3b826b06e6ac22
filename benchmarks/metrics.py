"""How much faster are surface Dice and HD95 of the organs of one scan than those of MONAI?

    python benchmarks/metrics.py [--shape 200,512,512] [--repeats 3] [--out metrics.json]

Makes a label map of 13 organs, from adrenal glands of 20 voxels across to a liver of 100 x 200 x 250, and a prediction
whose outlines wander off by a voxel or two and which here and there misses or invents a part. Both sides then compute
surface Dice and HD95 of every organ, in turns, on one thread:

- voxelseg from the two label maps, as `voxelseg evaluate` does: finding each organ in them is part of its time;
- MONAI by `compute_surface_dice` and `compute_hausdorff_distance`, as its users call them, from one-hot tensors
  (1, 14, D, H, W) of float32, background first: making them of the label maps is not part of its time.

Printed are the median times, their ratio, how far the scores are apart at most, and the time that all metrics of an
evaluation take. At the full size the tensors and what MONAI makes of them need about 8 GB of memory.
"""

import argparse
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import zoom

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.evaluate.case import class_pairs, score_label_maps
from voxelseg.files import write_json
from voxelseg.geometry import Spacing
from voxelseg.metrics.surface import hd95_mm, surface_dice
from voxelseg.version import __version__

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's own
    import monai
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

SPACING_MM: Spacing = (2.5, 0.8, 0.8)
TOLERANCE_MM = 2.0
FULL_SHAPE = (200, 512, 512)
# Name, centre as share of the image, and size in voxels at the full shape.
ORGANS = {
    "liver": ((0.55, 0.42, 0.30), (100, 200, 250)),
    "spleen": ((0.60, 0.60, 0.80), (48, 90, 70)),
    "right kidney": ((0.35, 0.66, 0.33), (46, 70, 66)),
    "left kidney": ((0.36, 0.68, 0.68), (46, 70, 66)),
    "stomach": ((0.62, 0.36, 0.66), (50, 100, 120)),
    "pancreas": ((0.42, 0.46, 0.55), (30, 46, 130)),
    "gallbladder": ((0.40, 0.34, 0.42), (20, 34, 34)),
    "oesophagus": ((0.80, 0.60, 0.52), (50, 24, 24)),
    "aorta": ((0.45, 0.62, 0.54), (150, 28, 28)),
    "vena cava": ((0.45, 0.60, 0.46), (130, 30, 30)),
    "portal vein": ((0.50, 0.48, 0.45), (30, 30, 70)),
    "right adrenal gland": ((0.48, 0.62, 0.40), (10, 20, 20)),
    "left adrenal gland": ((0.50, 0.64, 0.60), (12, 20, 24)),
}
LABELS = LabelScheme(tuple(LabelClass(name, (value,), value) for value, name in enumerate(ORGANS, start=1)))
LabelMap = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Shape = tuple[int, int, int]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Result:
    """Of one scan; times in s are medians."""

    shape: Shape
    ours_s: float
    monai_s: float
    ratio: float
    """How many times longer MONAI takes."""
    all_metrics_s: float
    """Of all metrics of an evaluation."""
    dice_apart: float
    """Largest difference of a surface Dice between both sides."""
    mm_apart: float
    """Of an HD95, in mm."""
    scores: dict[str, tuple[float, float]]
    """Organ -> surface Dice, HD95 in mm."""


def smooth_noise(
    shape: Sequence[int], period: Sequence[float], generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Random field of standard deviation near 1 that changes over `period` voxels along each axis."""
    coarse = [max(int(np.ceil(size / step)) + 3, 4) for size, step in zip(shape, period, strict=True)]
    factors = [(size + 2 * step) / number for size, step, number in zip(shape, period, coarse, strict=True)]
    field = zoom(generator.normal(size=coarse).astype(np.float32), factors, order=1)
    d, h, w = shape
    noise: npt.NDArray[np.float32] = field[:d, :h, :w] / field.std()
    return noise


def organ(size: Sequence[int], generator: np.random.Generator) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """An organ of about `size` voxels, and its prediction, in a box with room around them."""
    shape = [int(1.5 * one) + 12 for one in size]
    axes = [np.linspace(-box / one, box / one, box, dtype=np.float32) for box, one in zip(shape, size, strict=True)]
    d, h, w = np.meshgrid(*axes, indexing="ij", sparse=True)
    depth = (1 - np.sqrt(d * d + h * h + w * w)) * (min(size) / 2)  # in voxels, about, from the outline inwards
    depth = depth + min(size) / 12 * smooth_noise(shape, [one / 3 for one in size], generator)
    wandering = 0.8 * smooth_noise(shape, (6, 12, 12), generator) + 0.4 * smooth_noise(shape, (2, 3, 3), generator)
    gross = smooth_noise(shape, [one / 4 for one in size], generator)
    moved = depth + wandering + np.where(np.abs(gross) > 2.2, 2 * gross, 0)
    return depth > 0, moved > 0


def make_scan(shape: Shape, *, seed: int) -> tuple[LabelMap, LabelMap]:
    """Reference and prediction (D, H, W); organs shrink with the shape."""
    generator = np.random.default_rng(seed)
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for value, (centre, full_size) in enumerate(ORGANS.values(), start=1):
        size = [max(one * side // full, 4) for one, side, full in zip(full_size, shape, FULL_SHAPE, strict=True)]
        masks = organ(size, generator)
        for label_map, mask in zip((reference, prediction), masks, strict=True):
            put(label_map, mask, value, [int(share * side) for share, side in zip(centre, shape, strict=True)])
    return reference, prediction


def put(label_map: LabelMap, mask: npt.NDArray[np.bool_], value: int, centre: Sequence[int]) -> None:
    """Write `value` where `mask`, whose middle comes to lie at `centre`, is set; parts outside are cut off."""
    starts = [middle - length // 2 for middle, length in zip(centre, mask.shape, strict=True)]
    inside = tuple(slice(max(start, 0), start + length) for start, length in zip(starts, mask.shape, strict=True))
    part = label_map[inside]
    cut = tuple(
        slice(max(-start, 0), max(-start, 0) + length) for start, length in zip(starts, part.shape, strict=True)
    )
    part[mask[cut]] = value


def ours(reference: LabelMap, prediction: LabelMap) -> Floats:
    """Surface Dice and HD95 (2, classes)."""
    pairs = class_pairs(reference, prediction, LABELS, spacing_mm=SPACING_MM)
    return np.array([(surface_dice(pair, tolerance_mm=TOLERANCE_MM), hd95_mm(pair)) for _, pair in pairs]).T


def all_metrics(reference: LabelMap, prediction: LabelMap) -> None:
    """What an evaluation computes."""
    score_label_maps(
        reference,
        prediction,
        LABELS,
        case="scan",
        spacing_mm=SPACING_MM,
        voxel_mm3=float(np.prod(SPACING_MM)),
        tolerance_mm=TOLERANCE_MM,
    )


def theirs(reference: torch.Tensor, prediction: torch.Tensor) -> Floats:
    """Surface Dice and HD95 (2, classes) by MONAI, of one-hot tensors (1, classes + 1, D, H, W)."""
    thresholds = [TOLERANCE_MM] * len(ORGANS)
    dice = compute_surface_dice(prediction, reference, thresholds, spacing=SPACING_MM)
    hd95 = compute_hausdorff_distance(prediction, reference, percentile=95, spacing=SPACING_MM)
    found: Floats = torch.cat([dice, hd95]).double().numpy()
    return found


def one_hot(label_map: LabelMap) -> torch.Tensor:
    """Tensor (1, classes + 1, D, H, W) of float32, background first."""
    found = torch.zeros((1, len(ORGANS) + 1, *label_map.shape))
    for value in range(len(ORGANS) + 1):
        found[0, value] = torch.from_numpy(label_map == value)
    return found


def timed(work: Callable[[], Found]) -> tuple[float, Found]:
    """Seconds that `work` takes, and what it gives."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def measure(shape: Shape, *, repeats: int, seed: int = 0) -> Result:
    """Both sides in turns, and all metrics, `repeats` times each."""
    reference, prediction = make_scan(shape, seed=seed)
    tensors = one_hot(reference), one_hot(prediction)
    all_metrics(reference, prediction)  # what is made once, such as tables of areas, is no part of the times
    times: dict[str, list[float]] = {"ours": [], "monai": [], "all": []}
    for _ in range(repeats):
        seconds, our_scores = timed(lambda: ours(reference, prediction))
        times["ours"].append(seconds)
        seconds, their_scores = timed(lambda: theirs(*tensors))
        times["monai"].append(seconds)
        times["all"].append(timed(lambda: all_metrics(reference, prediction))[0])
    of_sides = {side: median(seconds) for side, seconds in times.items()}
    dice_apart, mm_apart = np.abs(our_scores - their_scores).max(axis=1).tolist()
    return Result(
        shape=shape,
        ours_s=of_sides["ours"],
        monai_s=of_sides["monai"],
        ratio=of_sides["monai"] / of_sides["ours"],
        all_metrics_s=of_sides["all"],
        dice_apart=dice_apart,
        mm_apart=mm_apart,
        scores={name: (dice, hd95) for name, (dice, hd95) in zip(ORGANS, our_scores.T.tolist(), strict=True)},
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default=",".join(map(str, FULL_SHAPE)), help="D,H,W of the scan")
    parser.add_argument("--repeats", type=int, default=3, help="of each side")
    parser.add_argument("--seed", type=int, default=0, help="of the organs")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    given = parser.parse_args(arguments)
    sides = given.shape.split(",")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) >= 16 for side in sides) or given.repeats < 1:
        parser.error("--shape needs three numbers of at least 16, such as 200,512,512, and --repeats 1 or more.")
    given.shape = tuple(map(int, sides))
    return given


def main(arguments: Sequence[str] | None = None) -> Result:
    """Measure, print, and write to `--out`."""
    given = parse(arguments)
    torch.set_num_threads(1)
    versions = {
        "voxelseg": __version__,
        "monai": monai.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure(given.shape, repeats=given.repeats, seed=given.seed)
    print(f"{platform.machine()}, one thread, {', '.join(f'{name} {version}' for name, version in versions.items())}")
    print(f"{len(ORGANS)} organs at {' x '.join(map(str, found.shape))}, medians of {given.repeats}")
    for name, (dice, hd95) in found.scores.items():
        print(f"  {name:20s} surface Dice {dice:.3f}, HD95 {hd95:5.2f} mm")
    print(f"surface Dice and HD95: voxelseg {found.ours_s:.2f} s, MONAI {found.monai_s:.2f} s, {found.ratio:.0f} times")
    print(f"scores apart by at most {found.dice_apart:.1g} and {found.mm_apart:.1g} mm")
    print(f"all metrics of an evaluation: {found.all_metrics_s:.2f} s")
    if given.out is not None:
        write_json(given.out, {**asdict(found), "versions": versions, "repeats": given.repeats, "seed": given.seed})
    return found


if __name__ == "__main__":
    main(sys.argv[1:])

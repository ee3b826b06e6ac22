"""Where samples of a pre-training come from: crops of unlabelled scans, and what a pretext task makes of them.

Sample n is a function of (seed, n) alone. An epoch takes one crop of each scan, in another order each time (Masked
LoGoNet, KDD 2024, Sec. 4.1). To crop to the foreground first, as the authors' code does, is a matter of the plan:
`plan.crop=positive` keeps the box around what is above 0 once it is normalised.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from voxelseg.data.dataset import Case
from voxelseg.data.wording import counted, some
from voxelseg.geometry import Shape
from voxelseg.patches.sampler import place_anywhere, place_near, read_image, sample_generator, shuffled_index
from voxelseg.preprocess.store import StoredCase

if TYPE_CHECKING:  # the methods read crops themselves
    from voxelseg.pretrain.methods.method import Sample, SampleDrawer

PADDING_WORTH_SAYING = 0.5
"""Share of a crop outside its scan from which on the scan is named."""

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScanCrops:
    """Crops of one stored scan; where the scan is smaller than a crop, it lies in its middle."""

    scan: StoredCase
    size: Shape

    @property
    def scan_number(self) -> int:
        """Stands for the scan: a checksum of its id, which two of 4,000 scans share in one of 500 data sets."""
        return crc32(self.scan.id.encode())

    def random(self, generator: np.random.Generator) -> Image:
        """A crop (C, D, H, W) at a random place; what lies outside the scan is 0."""
        return read_image(place_anywhere(self.scan, self.size, generator), self.size)

    def overlapping(self, generator: np.random.Generator) -> tuple[Image, Image]:
        """Two crops (C, D, H, W) at random places that share half of a crop or more along every axis."""
        first = place_anywhere(self.scan, self.size, generator)
        near = []
        for start, size, extent in zip(first.start, self.size, self.scan.shape, strict=True):
            lowest, highest = max(start - size // 2, 0), min(start + size // 2, extent - size)
            near.append(int(generator.integers(lowest, max(lowest, highest) + 1)))
        second = place_near(near, self.scan, self.size)
        return read_image(first, self.size), read_image(second, self.size)


@dataclass(frozen=True, kw_only=True)
class CropSource:
    """Everything that a sample depends on besides its number."""

    scans: Sequence[StoredCase]
    crop_size: Shape
    batch_size: int
    drawer: "SampleDrawer"
    seed: int

    def dataset(self) -> "CropDataset":
        """Sample n at index n."""
        return CropDataset(self)

    def cases_of(self, numbers: Iterable[int]) -> list[str]:
        """Ids of the scans that the samples with these numbers come from."""
        return [self._scan(number).id for number in numbers]

    def sample(self, number: int) -> "Sample":
        """Sample `number`: what the drawer makes of a scan's crops with a generator of its own."""
        crops = ScanCrops(self._scan(number), self.crop_size)
        return self.drawer(crops, sample_generator(self.seed, number))

    def _scan(self, number: int) -> StoredCase:
        return self.scans[shuffled_index(number, len(self.scans), seed=self.seed)]


class CropDataset(Dataset["Sample"]):
    """Sample n of a source at index n."""

    def __init__(self, source: CropSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> "Sample":
        return self.source.sample(number)


def held_out_scans(cases: Sequence[Case], *, share: float, seed: int, least: int = 1) -> tuple[list[Case], list[Case]]:
    """Scans to learn from and scans to watch the training by, each in the order of `cases`, no patient in both.

    Patients are drawn with `seed` until `share` of the scans are held out, and at least so many as `least` says, if
    somebody is left to learn from. A patient with whom there would be more too many than there are too few without is
    passed over, unless `least` needs one: then the one with the fewest scans. A share of 0 holds out none, and neither
    does a single patient.
    """
    num_scans = Counter(case.patient for case in cases)
    patients = sorted(num_scans)
    drawn = [patients[int(index)] for index in np.random.default_rng(seed).permutation(len(patients))]
    wanted = max(round(share * len(cases)), least)
    held_out = _nearest_to(wanted, drawn, num_scans, least=least) if share else set()
    return (
        [case for case in cases if case.patient not in held_out],
        [case for case in cases if case.patient in held_out],
    )


def _nearest_to(wanted: int, drawn: Sequence[str], num_scans: Mapping[str, int], *, least: int) -> set[str]:
    """Of the patients in the order they were `drawn`, all but one at most, those with about `wanted` scans together."""
    chosen: list[str] = []
    passed_over: list[str] = []
    held = 0
    for patient in drawn:
        if held >= wanted or len(chosen) == len(drawn) - 1:
            break
        if held + num_scans[patient] - wanted > wanted - held:
            passed_over.append(patient)
            continue
        chosen.append(patient)
        held += num_scans[patient]
    for patient in sorted(passed_over, key=num_scans.__getitem__):  # of equal ones the one that was drawn first
        if held >= least or len(chosen) == len(drawn) - 1:
            break
        chosen.append(patient)
        held += num_scans[patient]
    return set(chosen)


def crop_warnings(scans: Sequence[StoredCase], crop_size: Shape) -> list[str]:
    """A sentence if scans fill so little of a crop that it is mostly padding."""
    shares = {scan.id: _padding(scan.shape, crop_size) for scan in scans}
    padded = [name for name, share in shares.items() if share > PADDING_WORTH_SAYING]
    if not padded:
        return []
    size = " x ".join(map(str, crop_size))
    which = f"{len(padded)} of {counted(len(scans), 'scan')} ({some(padded)})"
    sentence = (
        f"{which} fill less than half of a crop of {size} voxels; at worst, {max(shares.values()):.0%} of it is "
        "padding. A scan smaller than a crop gives the same one each time. Choose smaller crops (plan.patch_size) or a "
        "finer plan.spacing_mm."
    )
    return [sentence]


def _padding(shape: Shape, crop_size: Shape) -> float:
    """Share of a crop that lies outside a scan of `shape`."""
    inside = prod(min(extent, size) for extent, size in zip(shape, crop_size, strict=True))
    return 1 - inside / prod(crop_size)

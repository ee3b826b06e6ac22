"""The embedded example data set: procedural scans that look like small abdominal CT, with exact reference labels.

Every case is drawn from (seed, index) alone. The anatomy is a list of shapes in millimetres, moved, scaled and smoothly
deformed per case and painted one over the other on a grid of half the voxel size; averaging eight such points per voxel
gives partial volume. Intensity alone does not find an organ: bowel, stomach, muscle, vena cava and pancreas share the
organs' Hounsfield units, and the units of every tissue change from case to case. Slice distance, field of view, axis
order, flips and tilt of the stored grid change too.

Body frame: millimetres along D, H, W (superior, anterior, right) from the middle of the body, so the patient's left has
negative W.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from voxelseg.errors import ConfigError, DataError
from voxelseg.files import locked, read_json, remove_leftovers, write_json
from voxelseg.geometry import Affine, Grid, Shape, Spacing
from voxelseg.io import write_volume
from voxelseg.volume import Volume

LABELS = {
    "background": 0,
    "liver": 1,
    "spleen": 2,
    "left_kidney": 3,
    "right_kidney": 4,
    "aorta": 5,
    "portal_vein": 6,
    "gallbladder": 7,
}
"""Label values of the organs; the portal vein is the small tube, the gallbladder the small blob."""

FOLDER_NAME = "Task900_Phantom"
_MARKER = "phantom.json"
FIRST_TEST_INDEX = 1000
"""Index of the first test case, so that the test cases stay the same whatever the number of training cases."""

_RECIPE = 2  # raised when the same seed no longer gives the same files
_DRAWING = 1  # raised when the same (seed, index) no longer gives the same case; then the recipe is another too
_ORIENTATIONS = ("RAS", "LPS", "LAS", "RPI", "SRA", "LSP")  # as stored in the file, in turn
_FIELD_OF_VIEW_MM = (130.0, 186.0, 224.0)
_AIR_HU = -1000.0

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PhantomCase:
    """One scan and its reference on the same grid."""

    image: Volume
    """(1, D, H, W) int16 Hounsfield units."""
    label: Volume
    """(1, D, H, W) uint8, values of LABELS."""


def phantom_case(seed: int, index: int) -> PhantomCase:
    """Case number `index` of the phantom with this `seed`: image and label, a function of the two numbers alone.

    32 to 43 slices of 3 to 4 mm, 65 to 74 by 79 to 90 voxels of 2.5 to 2.85 mm in plane. Every organ of LABELS occurs.
    Raises ConfigError for a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise ConfigError(f"phantom seed {seed}, case {index}: neither may be negative. Choose numbers from 0 on.")
    rng = np.random.default_rng((_DRAWING, seed, index))
    grid = _draw_grid(rng, index)
    hu = _draw_intensities(rng)
    canvas = _Canvas(_body_points(rng, grid), coat_hu=hu["fat"])
    inside = _paint_wall(rng, canvas, hu)
    _paint_unlabelled(rng, canvas, hu, inside)
    _paint_spine(rng, canvas, hu)
    _paint_organs(rng, canvas, hu, inside)
    ideal, label = canvas.develop()
    return PhantomCase(Volume(_scan(rng, ideal)[None], grid), Volume(label[None], grid))


def make_phantom(
    out: Path,
    *,
    num_training: int = 20,
    num_test: int = 6,
    seed: int = 0,
    num_workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Folder `out`/Task900_Phantom with the phantom as a data set in MSD layout, test labels in `labelsTs`.

    Training cases have the indices 0 to `num_training` - 1, test cases FIRST_TEST_INDEX and following. The same seed
    gives byte-identical files. An interrupted call is continued by repeating it: complete files are kept, and
    dataset.json is written last. `progress` is called with the number of finished cases and of all cases.
    Raises ConfigError for impossible numbers, DataError if the folder already holds something else.
    """
    if not 1 <= num_training <= FIRST_TEST_INDEX or num_test < 0 or num_workers < 1 or seed < 0:
        raise ConfigError(
            f"phantom with {num_training} training cases, {num_test} test cases, {num_workers} workers, seed {seed}: "
            f"expected 1 to {FIRST_TEST_INDEX} training cases, 0 or more test cases, 1 or more workers, a seed >= 0."
        )
    folder = Path(out) / FOLDER_NAME
    settings = {"seed": seed, "recipe": _RECIPE}
    _refuse_another(folder, settings)
    jobs = [("Tr", index) for index in range(num_training)]
    jobs += [("Ts", FIRST_TEST_INDEX + number) for number in range(num_test)]
    with locked(folder):
        write_json(folder / _MARKER, settings)
        _write_cases(folder, jobs, seed, num_workers, progress)
        write_json(folder / "dataset.json", _description(folder, jobs, seed))
    return folder


def _write_cases(
    folder: Path,
    jobs: Sequence[tuple[str, int]],
    seed: int,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write image and label map of each (part, index) that is not there yet."""
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        remove_leftovers(folder / name)

    def write(job: tuple[str, int]) -> None:
        part, index = job
        image_path, label_path = _paths(folder, part, index)
        if image_path.exists() and label_path.exists():
            return
        case = phantom_case(seed, index)
        for path, volume in ((image_path, case.image), (label_path, case.label)):
            write_volume(path, volume)

    pool = ThreadPoolExecutor(num_workers)  # the work is in numpy and zlib, which leave the other threads running
    try:
        for done, _ in enumerate(pool.map(write, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_another(folder: Path, settings: dict[str, Any]) -> None:
    """DataError if `folder` holds the phantom of another seed or recipe, or another data set."""
    marker = folder / _MARKER
    if marker.exists():
        found = read_json(marker, remedy="Delete the folder or choose another output folder.")
        if found != settings:
            raise DataError(
                f"{folder}: holds a phantom made with {found}, expected {settings}. "
                "Delete the folder or choose another output folder."
            )
    elif (folder / "dataset.json").exists():
        raise DataError(f"{folder}: holds a data set that is not a phantom. Choose another output folder.")


def _paths(folder: Path, part: str, index: int) -> tuple[Path, Path]:
    name = f"phantom_{index:03d}.nii.gz"  # four digits would be read as the number of a channel
    return folder / f"images{part}" / name, folder / f"labels{part}" / name


def _description(folder: Path, jobs: Sequence[tuple[str, int]], seed: int) -> dict[str, Any]:
    training, test = [], []
    for part, index in jobs:
        image, label = (f"./{path.relative_to(folder).as_posix()}" for path in _paths(folder, part, index))
        if part == "Tr":
            training.append({"image": image, "label": label})
        else:
            test.append(image)
    return {
        "name": "Phantom",
        "description": f"Procedural abdominal CT of the voxelseg phantom, seed {seed}; test labels are in labelsTs",
        "licence": "Apache-2.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): name for name, value in LABELS.items()},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }


# ---------------------------------------------------------------------------------------------------------- geometry


def _draw_grid(rng: np.random.Generator, index: int) -> Grid:
    """Grid with random spacing, origin and, for every third case, tilt; the stored orientation takes turns."""
    in_plane = rng.uniform(2.5, 2.85)
    spacing: Spacing = (float(rng.uniform(3.0, 4.0)), in_plane, in_plane)
    d, h, w = (round(length / step) for length, step in zip(_FIELD_OF_VIEW_MM, spacing, strict=True))
    tilt = _rotation(rng.choice((-1, 1), 3) * rng.uniform(2.0, 6.0, 3)) if index % 3 == 1 else np.eye(3)
    columns, sizes = [], []
    for letter in _ORIENTATIONS[index % len(_ORIENTATIONS)]:
        world = "RLAPSI".index(letter) // 2
        columns.append(tilt[:, world] * (in_plane, in_plane, spacing[0])[world] * (-1 if letter in "LPI" else 1))
        sizes.append((w, h, d)[world])
    centre = (rng.normal(0, 30), rng.normal(-150, 40), rng.normal(-400, 150))  # scanners put their origin anywhere
    affine: Affine = np.eye(4)
    affine[:3, :3] = np.stack(columns, axis=1)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(sizes) - 1) / 2)
    affine = affine.astype(np.float32).astype(np.float64)  # as NIfTI keeps it
    return Grid(
        shape_ijk=(sizes[0], sizes[1], sizes[2]),
        affine_ijk=affine,
        sform=affine,
        sform_code=1,
        qform=affine,
        qform_code=1,
    )


def _rotation(degrees: npt.NDArray[np.float64] | Triple) -> npt.NDArray[np.float64]:
    """Rotation matrix about the first, then the second, then the third axis."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _smooth_fields(rng: np.random.Generator, shape: Shape, num_fields: int) -> list[Field]:
    """Random fields (D, H, W) of unit standard deviation: sums of the lowest cosines along each axis."""
    bases = [
        np.cos(np.pi * np.outer((np.arange(size) + 0.5) / size, np.arange(4))).astype(np.float32) for size in shape
    ]
    order = np.add.outer(np.add.outer(np.arange(4) ** 2, np.arange(4) ** 2), np.arange(4) ** 2)
    fields = []
    for _ in range(num_fields):
        weights = rng.normal(size=(4, 4, 4)) / (1.0 + order)
        weights[0, 0, 0] = 0.0  # no shift of the whole
        weights *= np.sqrt(1.0 / (weights**2 / 2.0 ** (np.indices((4, 4, 4)) > 0).sum(0)).sum())
        field = weights.astype(np.float32)
        for base in bases:  # each turn moves the leading axis to the end
            field = np.tensordot(field, base, axes=(0, 1))
        fields.append(np.ascontiguousarray(field))
    return fields


def _body_points(rng: np.random.Generator, grid: Grid) -> tuple[Field, Field, Field]:
    """Body coordinates (D, H, W in mm) of points at half the voxel size, deformed as this patient is."""
    shape = tuple(2 * size for size in grid.shape_dhw)
    axes = [(np.arange(size) - (size - 1) / 2) / 2 for size in shape]
    size_of_patient = rng.uniform(0.94, 1.06)
    shift_mm = rng.uniform(-1, 1, 3) * (4.0, 2.0, 2.0)
    points = []
    deformation = _smooth_fields(rng, (shape[0], shape[1], shape[2]), 3)
    for world, amplitude_mm, field, shift in zip((2, 1, 0), (3.5, 3.0, 3.0), deformation, shift_mm, strict=True):
        d, h, w = (
            (axis * grid.affine_dhw[world, column] / size_of_patient).astype(np.float32)
            for column, axis in enumerate(axes)
        )
        plane = d[:, None, None] + h[None, :, None] + w[None, None, :]
        points.append(plane + np.float32(amplitude_mm) * field + np.float32(shift))
    return points[0], points[1], points[2]


# ------------------------------------------------------------------------------------------------- shapes and canvas


class _Shape(Protocol):
    """Something that says which points lie inside it, `grow_mm` outside its surface included."""

    def bounds(self, grow_mm: float) -> tuple[Triple, Triple]: ...

    def inside(self, z: Field, y: Field, x: Field, grow_mm: float) -> Mask: ...


@dataclass(frozen=True)
class _Ellipsoid:
    centre: Triple
    radii: Triple
    turn_degrees: Triple = (0.0, 0.0, 0.0)

    def bounds(self, grow_mm: float) -> tuple[Triple, Triple]:
        """Lower and upper corner of the box around the shape."""
        reach = np.sqrt(((_rotation(self.turn_degrees) * (np.array(self.radii) + grow_mm)) ** 2).sum(1))
        lower, upper = np.array(self.centre) - reach, np.array(self.centre) + reach
        return (lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2])

    def level(self, z: Field, y: Field, x: Field, grow_mm: float) -> Field:
        """Square of the distance from the centre in units of the radius: 1 on the surface."""
        offset = [axis - np.float32(middle) for axis, middle in zip((z, y, x), self.centre, strict=True)]
        turn = _rotation(self.turn_degrees).T / (np.array(self.radii)[:, None] + grow_mm)
        total: Field = np.zeros_like(z)
        for row in turn.astype(np.float32):
            along = row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]
            total += along * along
        return total

    def inside(self, z: Field, y: Field, x: Field, grow_mm: float) -> Mask:
        return self.level(z, y, x, grow_mm) < 1.0


@dataclass(frozen=True)
class _Blend:
    """Ellipsoids that flow into each other."""

    parts: tuple[_Ellipsoid, ...]

    def bounds(self, grow_mm: float) -> tuple[Triple, Triple]:
        lower, upper = zip(*(part.bounds(grow_mm + 6.0) for part in self.parts), strict=True)
        low, high = np.min(lower, axis=0), np.max(upper, axis=0)
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def inside(self, z: Field, y: Field, x: Field, grow_mm: float) -> Mask:
        total = np.zeros_like(z)
        for part in self.parts:
            total += np.maximum(part.level(z, y, x, grow_mm), np.float32(1e-3)) ** -4
        return total > 1.0


@dataclass(frozen=True)
class _Tube:
    """All points within `radius` of a line through `points`."""

    points: tuple[Triple, ...]
    radius: float

    def bounds(self, grow_mm: float) -> tuple[Triple, Triple]:
        low = np.min(self.points, axis=0) - self.radius - grow_mm
        high = np.max(self.points, axis=0) + self.radius + grow_mm
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def inside(self, z: Field, y: Field, x: Field, grow_mm: float) -> Mask:
        nearest = np.full_like(z, np.inf)
        for start, end in zip(self.points[:-1], self.points[1:], strict=True):
            step = np.subtract(end, start).astype(np.float32)
            dz, dy, dx = (axis - np.float32(origin) for axis, origin in zip((z, y, x), start, strict=True))
            along = np.clip((dz * step[0] + dy * step[1] + dx * step[2]) / (step @ step), 0, 1)
            distance = (dz - along * step[0]) ** 2 + (dy - along * step[1]) ** 2 + (dx - along * step[2]) ** 2
            np.minimum(nearest, distance, out=nearest)
        return nearest < np.float32((self.radius + grow_mm) ** 2)


class _Canvas:
    """Tissue of every point, air at first; later paint covers earlier paint."""

    def __init__(self, points: tuple[Field, Field, Field], *, coat_hu: float) -> None:
        self.points = points
        self.tissue = np.zeros(points[0].shape, np.uint8)
        self.hu = [_AIR_HU]
        self.values = [0]
        self.coat = self.mix(coat_hu)
        others = ((1, 2), (0, 2), (0, 1))
        self._extent = [(p.min(axis=rest), p.max(axis=rest)) for p, rest in zip(points, others, strict=True)]

    def mix(self, hu: float, value: int = 0) -> int:
        """Number of a fresh tissue with this intensity and label value."""
        self.hu.append(hu)
        self.values.append(value)
        return len(self.hu) - 1

    def paint(self, shape: _Shape, tissue: int, *, within: Mask | None = None, coat_mm: float = 0.0) -> None:
        """Give the points inside `shape` this tissue, and a layer of `coat_mm` around it the coat's.

        Only points in the mask `within` are painted.
        """
        box = self._box(*shape.bounds(coat_mm))
        z, y, x = (axis[box] for axis in self.points)
        allowed = True if within is None else within[box]
        if coat_mm > 0:
            self.tissue[box][shape.inside(z, y, x, coat_mm) & allowed] = self.coat
        self.tissue[box][shape.inside(z, y, x, 0.0) & allowed] = tissue

    def _box(self, lower: Triple, upper: Triple) -> tuple[slice, slice, slice]:
        """Smallest index box that holds every point between the two corners."""
        box = []
        for (smallest, largest), low, high in zip(self._extent, lower, upper, strict=True):
            hit = np.flatnonzero((largest >= low) & (smallest <= high))
            box.append(slice(hit[0], hit[-1] + 1) if hit.size else slice(0, 0))
        return box[0], box[1], box[2]

    def develop(self) -> tuple[Field, npt.NDArray[np.uint8]]:
        """Mean intensity (D, H, W) of the eight points of each voxel, and the organ that fills half of it or more."""
        image: Field = np.multiply(_sum_of_eight(np.array(self.hu, np.float32)[self.tissue]), np.float32(1 / 8))
        values = np.array(self.values, np.uint8)[self.tissue]
        label: npt.NDArray[np.uint8] = np.zeros(image.shape, np.uint8)
        most = np.full_like(label, 3)
        for value in range(1, len(LABELS)):
            count = _sum_of_eight((values == value).view(np.uint8))
            label[count > most] = value
            np.maximum(most, count, out=most)
        return image, label


def _sum_of_eight(fine: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums over blocks of 2 x 2 x 2."""
    rows = fine[..., ::2] + fine[..., 1::2]
    planes = rows[:, ::2] + rows[:, 1::2]
    blocks: npt.NDArray[Any] = planes[::2] + planes[1::2]
    return blocks


# ----------------------------------------------------------------------------------------------------------- anatomy


def _draw_intensities(rng: np.random.Generator) -> dict[str, float]:
    """Hounsfield units of this patient's tissues; neighbours in the list may swap their order between cases."""
    hu = {
        "fat": rng.uniform(-110, -90),
        "skin": rng.uniform(10, 40),
        "muscle": rng.uniform(60, 90),
        "bone": rng.uniform(350, 550),
        "marrow": rng.uniform(130, 220),
        "lung": rng.uniform(-880, -780),
        "liver": rng.uniform(65, 105),
        "left_kidney": rng.uniform(110, 190),
        "aorta": rng.uniform(100, 210),
        "gallbladder": rng.uniform(-5, 22),
    }
    hu["spleen"] = hu["liver"] + rng.uniform(0, 35)
    hu["right_kidney"] = hu["left_kidney"] + rng.uniform(-6, 6)
    hu["vena_cava"] = hu["aorta"] + rng.uniform(-35, 10)
    hu["portal_vein"] = hu["liver"] + rng.uniform(45, 90)
    hu["pancreas"] = hu["liver"] + rng.uniform(-25, 10)
    return {name: float(value) for name, value in hu.items()}


def _paint_wall(rng: np.random.Generator, canvas: _Canvas, hu: dict[str, float]) -> Mask:
    """Skin, fat, muscle, ribs and the lung bases; returns the points inside the abdominal wall."""
    z, y, x = canvas.points
    across, ahead, behind = 103.0, rng.uniform(76, 84), rng.uniform(70, 76)
    u2 = (x / np.float32(across)) ** 2
    v2 = (y / np.where(y > 0, np.float32(ahead), np.float32(behind))) ** 2
    level = 0.6 * np.sqrt(u2 + v2) + 0.4 * np.sqrt(np.sqrt(u2 * u2 + v2 * v2))  # between ellipse and rounded box
    depth = np.sqrt(x * x + y * y) * (1 / np.maximum(level, np.float32(1e-3)) - 1)  # mm below the skin, along a ray
    skin, fat, muscle = 2.5, rng.uniform(6.0, 13.0), rng.uniform(7.5, 10.0)
    cavity = depth > fat + muscle
    rib = np.cos((z + 0.45 * y + rng.uniform(-12, 12)) * np.float32(2 * np.pi / 26.0)) > 0.55  # ribs fall forwards
    rib &= (np.abs(depth - (fat + 0.55 * muscle)) < 3.2) & (z > -25 + 0.7 * y) & (np.abs(x) > 12)
    layers = ((depth > 0, "skin"), (depth > skin, "fat"), (depth > fat, "muscle"), (rib, "bone"), (cavity, "fat"))
    for mask, name in layers:
        canvas.tissue[mask] = canvas.mix(hu[name])
    dome = rng.uniform(50, 56) - 0.006 * (np.abs(x) - 48) ** 2 - 0.006 * (y - 5) ** 2
    canvas.tissue[cavity & (z > dome) & (np.abs(x) + 0.3 * y > 12)] = canvas.mix(hu["lung"])
    return cavity


def _paint_spine(rng: np.random.Generator, canvas: _Canvas, hu: dict[str, float]) -> None:
    """Vertebrae with discs, spinal canal and processes, and the muscles beside them."""
    muscle, bone, marrow = (canvas.mix(hu[name]) for name in ("muscle", "bone", "marrow"))
    disc, canal = canvas.mix(hu["muscle"] + rng.uniform(5, 40)), canvas.mix(rng.uniform(10, 35))
    for side in (-1, 1):
        canvas.paint(_Tube(((-90, -58, 26 * side), (90, -58, 24 * side)), 11), muscle)  # erector spinae
        canvas.paint(_Tube(((-90, -30, 31 * side), (25, -42, 18 * side)), 10), muscle)  # psoas
        canvas.paint(_Tube(((-90, -38, 58 * side), (10, -44, 46 * side)), 7), muscle)  # quadratus lumborum
    phase = np.cos((canvas.points[0] + rng.uniform(-14, 14)) * np.float32(2 * np.pi / 28.0))  # a vertebra each 28 mm
    for y, x, radius, tissue, where in (
        (-68, 0, 4.5, bone, phase < 0.4),  # spinous process
        (-56, -18, 3.5, bone, phase < -0.2),  # transverse processes
        (-56, 18, 3.5, bone, phase < -0.2),
        (-39, 0, 15.0, bone, phase < 0.75),
        (-39, 0, 12.5, marrow, phase < 0.6),
        (-39, 0, 14.0, disc, phase >= 0.75),
        (-56, 0, 8.5, bone, phase < 0.5),  # arch around the canal
        (-56, 0, 6.0, canal, None),
    ):
        canvas.paint(_Tube(((-90, y, x), (90, y, x)), radius), tissue, within=where)


def _near(rng: np.random.Generator, centre: Triple, spread: float) -> Triple:
    """Three numbers (a place in mm, or angles in degrees), each at most `spread` from `centre`."""
    z, y, x = (float(value + rng.uniform(-spread, spread)) for value in centre)
    return z, y, x


def _about(rng: np.random.Generator, radii: Triple, share: float = 0.1) -> Triple:
    """The radii, each longer or shorter by at most `share` of itself."""
    z, y, x = (float(value * rng.uniform(1 - share, 1 + share)) for value in radii)
    return z, y, x


def _paint_unlabelled(rng: np.random.Generator, canvas: _Canvas, hu: dict[str, float], inside: Mask) -> None:
    """Stomach, bowel, pancreas and veins: soft tissue with the organs' intensities that belongs to no class."""
    gas = canvas.mix(-900.0)
    for _ in range(30):  # bowel, some with contrast agent, some with gas
        centre = (rng.uniform(-75, -10), rng.uniform(8, 64), rng.uniform(-75, 68))
        loop = _Ellipsoid(centre, _about(rng, (11, 11, 17), 0.35), _near(rng, (0, 0, 0), 90))
        canvas.paint(
            loop,
            canvas.mix(rng.choice((hu["gallbladder"], rng.uniform(40, 190)), p=(0.1, 0.9))),
            within=inside,
            coat_mm=2.0,
        )
        if rng.random() < 0.25:
            canvas.paint(_Ellipsoid((centre[0], centre[1] + 3.5, centre[2]), (5, 4, 6)), gas, within=inside)
    for x in (-70, 70):  # descending and ascending colon
        line = (_near(rng, (-90, 2, x), 4), _near(rng, (-45, 0, x), 4), _near(rng, (-22, 8, x), 4))
        canvas.paint(_Tube(line, 11), canvas.mix(rng.uniform(50, 120)), within=inside, coat_mm=2.0)
        canvas.paint(_Tube(tuple((z, y + 5, x) for z, y, x in line), 5), gas, within=inside)
    fundus = _Ellipsoid(_near(rng, (30, 8, -44), 4), _about(rng, (24, 26, 24)), _near(rng, (0, 0, 0), 8))
    antrum = _Ellipsoid(_near(rng, (0, 26, -26), 4), _about(rng, (13, 17, 26)), _near(rng, (0, 0, 0), 8))
    canvas.paint(_Blend((fundus, antrum)), canvas.mix(rng.uniform(50, 120)), within=inside, coat_mm=2.0)
    canvas.paint(_Ellipsoid(_near(rng, (34, 26, -42), 4), (10, 7, 14)), gas, within=inside)
    pancreas = _Tube((_near(rng, (-16, 2, 24), 3), (-10, 8, 4), _near(rng, (4, -4, -30), 4)), 7.5)
    canvas.paint(pancreas, canvas.mix(hu["pancreas"]), within=inside)
    renal_vein = _Tube(((-14, -28, -40), (-10, -14, -16), (-8, -13, 8)), 3.5)
    canvas.paint(renal_vein, canvas.mix(hu["vena_cava"]), within=inside)
    mesenteric_vein = _Tube((_near(rng, (-80, 20, 6), 5), _near(rng, (-45, 16, 2), 4), (-33, 15, -4)), 5.0)
    canvas.paint(mesenteric_vein, canvas.mix(hu["portal_vein"]), within=inside, coat_mm=2.0)
    duodenum = _Ellipsoid(_near(rng, (-34, 10, 36), 4), _about(rng, (11, 10, 9), 0.2), _near(rng, (0, 0, 0), 30))
    canvas.paint(duodenum, canvas.mix(rng.uniform(35, 80)), within=inside, coat_mm=2.0)


def _paint_organs(rng: np.random.Generator, canvas: _Canvas, hu: dict[str, float], inside: Mask) -> None:
    """The labelled organs, each in a thin coat of fat, and the vena cava between them."""
    organ = {name: canvas.mix(hu[name], value) for name, value in LABELS.items() if value}
    right_lobe = _Ellipsoid(_near(rng, (14, 0, 56), 3), _about(rng, (43, 52, 44)), _near(rng, (0, 0, 0), 8))
    left_lobe = _Ellipsoid(_near(rng, (28, 30, 8), 3), _about(rng, (20, 24, 36)), _near(rng, (0, -12, 0), 8))
    canvas.paint(_Blend((right_lobe, left_lobe)), organ["liver"], within=inside, coat_mm=2.0)
    spleen = _Ellipsoid(_near(rng, (22, -24, -68), 3), _about(rng, (33, 36, 19)), _near(rng, (20, 0, 0), 8))
    canvas.paint(spleen, organ["spleen"], within=inside, coat_mm=2.0)
    rise = rng.uniform(-5, 5)
    for name, side, z in (("left_kidney", -1, -14 + rise), ("right_kidney", 1, -26 + rise)):
        centre = _near(rng, (z, -30, 49 * side), 3)
        turn = _near(rng, (0, -12 * side, -25 * side), 8)
        canvas.paint(_Ellipsoid(centre, _about(rng, (31, 16, 18)), turn), organ[name], within=inside, coat_mm=3.0)
        sinus = _Ellipsoid((centre[0], centre[1] + 5, centre[2] - 13 * side), (11, 6, 10), turn)
        canvas.paint(sinus, canvas.coat)
    vena_cava = _Tube(((-90, -14, 14), _near(rng, (-10, -13, 15), 2), (80, -6, 16)), 9.0)
    canvas.paint(vena_cava, canvas.mix(hu["vena_cava"]), coat_mm=1.5)
    aorta_line = ((-90, -15, -7), _near(rng, (-30, -14, -8), 3), _near(rng, (20, -16, -9), 3), (80, -18, -9))
    canvas.paint(_Tube(aorta_line, rng.uniform(7.8, 9.2)), organ["aorta"], coat_mm=1.5)
    bladder = _Ellipsoid(_near(rng, (-24, 32, 44), 3), _about(rng, (15, 15, 12)), _near(rng, (20, 0, 0), 12))
    canvas.paint(bladder, organ["gallbladder"], coat_mm=1.5)
    bend, hilum = _near(rng, (0, 9, 10), 2), _near(rng, (14, 4, 28), 2)
    portal_line = (_near(rng, (-12, 13, -2), 2), bend, hilum, _near(rng, (20, 8, 42), 2))
    canvas.paint(_Tube(portal_line, rng.uniform(7.0, 8.0)), organ["portal_vein"], coat_mm=1.5)


def _scan(rng: np.random.Generator, ideal: Field) -> npt.NDArray[np.int16]:
    """What a scanner makes of the ideal image: blur, mottle, slowly varying bias, noise; int16 Hounsfield units."""
    image = gaussian_filter(ideal, (0.35, 0.45, 0.45))
    dense = np.clip((image + 300) / 200, 0, 1)  # air and lung keep their values
    (bias,) = _smooth_fields(rng, (ideal.shape[0], ideal.shape[1], ideal.shape[2]), 1)
    mottle = gaussian_filter(rng.standard_normal(ideal.shape, dtype=np.float32), 1.2)
    mottle *= rng.uniform(4.0, 8.0) / mottle.std()
    noise = rng.standard_normal(ideal.shape, dtype=np.float32) * rng.uniform(9.0, 15.0)
    image = image + dense * (rng.uniform(3.0, 8.0) * bias + mottle) + noise
    hounsfield: npt.NDArray[np.int16] = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return hounsfield

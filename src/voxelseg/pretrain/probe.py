"""Probe of a pre-training: do its frozen features tell the classes of voxels apart, and better than fresh weights do?

Of some labelled cases crops are taken around voxels of their classes, and of each crop as many voxels of each class.
A linear classifier and the nearest neighbours learn from the features of the voxels of some patients, and are scored on
those of others, with the pre-trained weights and with freshly drawn ones in the same network, whose batch norms have
seen the crops of the cases that are learnt from.

F feature channels, N voxels, K classes, the background included.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.geometry import Shape
from voxelseg.nets import Network
from voxelseg.nets.parts import Part
from voxelseg.patches.sampler import Place, place_near, read_place
from voxelseg.preprocess.store import StoredCase
from voxelseg.statistics.paired import PairedDifference, paired_difference

CROPS_PER_CASE = 4
VOXELS_PER_CROP = 32
"""Of each class that a crop has."""
NEIGHBOURS = 20
PROBES = ("linear", "nearest neighbours")
PRETRAINED, FRESH = "pre-trained", "fresh"
Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Voxels:
    """Drawn voxels of one case."""

    features: Mapping[str, Floats]
    """Weights to the features (N, F) that they give."""
    classes: Classes
    """(N,), as the label scheme encodes them."""


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """What one kind of classifier reached on the features of the scored cases."""

    accuracy: Mapping[str, float]
    """Weights to the mean over the cases of the mean over a case's classes of the share that was told rightly."""
    recall: Mapping[str, Mapping[str, float]]
    """Weights to each class's share of voxels that were told rightly."""
    difference: PairedDifference
    """Of the accuracy, pre-trained minus fresh, paired by case."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """All of it."""

    probes: Mapping[str, ProbeScore]
    """By kind of classifier."""
    chance: float
    """Accuracy of guessing."""
    cases_fitted: int
    cases_scored: int
    voxels_fitted: int
    voxels_scored: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def draw_voxels(
    case: StoredCase,
    networks: Mapping[str, Network],
    *,
    part: Part,
    crop_size: Shape,
    generator: np.random.Generator,
    device: torch.device,
) -> Voxels:
    """Voxels of `CROPS_PER_CASE` crops of a case, balanced over the classes of each, and their features.

    Features are those of full resolution, or with the part "encoder" the deepest ones. Networks lie on `device`.
    Raises DataError for a case without any labelled voxel.
    """
    features: dict[str, list[Floats]] = {name: [] for name in networks}
    classes: list[Classes] = []
    for place in _places(case, crop_size, generator):
        image, target = read_place(place, crop_size)
        voxels = _balanced(_inside(target, place), generator)
        classes.append(target[tuple(voxels.T)])
        batch = _batch_of(image, device)
        for name, network in networks.items():
            features[name].append(_features_at(network, batch, voxels, part))
    if not classes:
        raise DataError(f"case {case.id} has no labelled voxel to probe with. Leave it out of the folds.")
    return Voxels({name: np.concatenate(found) for name, found in features.items()}, np.concatenate(classes))


def _places(case: StoredCase, crop_size: Shape, generator: np.random.Generator) -> list[Place]:
    """Crops around a voxel of each class in turn, the background's included, in a drawn order."""
    sources = [case.voxels_of_class(position) for position in case.classes] + [case.background_voxels()]
    sources = [voxels for voxels in sources if len(voxels)]
    order = generator.permutation(len(sources))
    places = []
    for number in range(CROPS_PER_CASE if sources else 0):
        voxels = sources[order[number % len(sources)]]
        centre = voxels[int(generator.integers(len(voxels)))]
        wanted = [int(middle) - size // 2 for middle, size in zip(centre, crop_size, strict=True)]
        places.append(place_near(wanted, case, crop_size))
    return places


def _batch_of(image: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A crop (C, D, H, W) as a batch of one."""
    return torch.from_numpy(np.ascontiguousarray(image))[None].to(device)


@torch.no_grad()
def settle_batch_norms(network: Network, images: Iterable[torch.Tensor]) -> None:
    """Give the batch norms of fresh weights the statistics of `images` (B, C, D, H, W), as a training gives them.

    Without, fresh features would grow or fade from layer to layer, and nothing would be easier to beat. Networks with
    other norms are left as they are; all are in evaluation mode afterwards.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all images
        network.train()
        for image in images:
            network.features(image)
    network.eval()


def _inside(target: Classes, place: Place) -> Classes:
    """`target` (D, H, W) of a crop with -1, as for voxels that nobody labelled, where it lies outside the scan."""
    kept = np.full_like(target, -1)
    box = tuple(
        slice(max(-first, 0), min(size, extent - first))
        for first, size, extent in zip(place.start, target.shape, place.case.shape, strict=True)
    )
    kept[box] = target[box]
    return kept


def _balanced(target: Classes, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Voxels (N, 3) of a crop: as many of each class as there are, at most `VOXELS_PER_CROP`."""
    found = []
    for one in np.unique(target[target >= 0]):
        places = np.flatnonzero(target == one)
        found.append(generator.choice(places, min(VOXELS_PER_CROP, places.size), replace=False))
    drawn = np.concatenate(found) if found else np.empty(0, np.int64)
    return np.stack(np.unravel_index(drawn, target.shape), axis=1)


@torch.inference_mode()
def _features_at(network: Network, image: torch.Tensor, voxels: npt.NDArray[np.int64], part: Part) -> Floats:
    """Features (N, F) of voxels of a crop (1, C, D, H, W): of each the feature voxel that it lies in."""
    found = network.features(image) if part == "all" else network.encode(image)[0]
    sizes, whole = np.array(found.shape[2:]), np.array(image.shape[2:])
    d, h, w = torch.from_numpy((voxels * sizes // whole).T).to(found.device)
    chosen: Floats = found[0][:, d, h, w].T.float().cpu().numpy()
    return chosen


def probe(
    fit: Sequence[StoredCase],
    score: Sequence[StoredCase],
    networks: Mapping[str, Network],
    *,
    part: Part,
    crop_size: Shape,
    labels: LabelScheme,
    patients: Mapping[str, str],
    seed: int,
    device: torch.device,
    progress: Callable[[int, str], None] | None = None,
) -> ProbeResult:
    """How well linear and nearest-neighbour classifiers of the features of the cases `fit` tell those of `score`.

    `networks` are the one with pre-trained weights and the one with fresh ones, by `PRETRAINED` and `FRESH`, in
    evaluation mode on `device`; `patients` has the patient of each case by its id. At most one crop's features are in
    memory besides those of the drawn voxels. `progress` is called with the number of cases done and the one in work.

    Raises DataError if all voxels are of one class, and for a case without any labelled voxel.
    """
    settle_batch_norms(
        networks[FRESH],
        (
            _batch_of(read_place(place, crop_size)[0], device)
            for number, case in enumerate(fit)
            for place in _places(case, crop_size, np.random.default_rng((seed, number)))
        ),
    )
    drawn: list[Voxels] = []
    for number, case in enumerate([*fit, *score]):
        if progress is not None:
            progress(number, case.id)
        generator = np.random.default_rng((seed, number))
        drawn.append(draw_voxels(case, networks, part=part, crop_size=crop_size, generator=generator, device=device))
    known, asked = drawn[: len(fit)], dict(zip([case.id for case in score], drawn[len(fit) :], strict=True))
    classes = np.concatenate([one.classes for one in known])
    if len(np.unique(classes)) < 2:
        raise DataError("all labelled voxels are of one class: there is nothing to tell apart. Probe with other cases.")
    names = class_names(labels)
    probes = {
        kind: _scored(
            {name: _fitted(kind, np.concatenate([one.features[name] for one in known]), classes) for name in networks},
            asked,
            names,
            patients,
        )
        for kind in PROBES
    }
    return ProbeResult(
        probes=probes,
        chance=fmean(1 / max(len(np.unique(one.classes)), 1) for one in asked.values()),
        cases_fitted=len(fit),
        cases_scored=len(score),
        voxels_fitted=len(classes),
        voxels_scored=sum(len(one.classes) for one in asked.values()),
    )


def class_names(labels: LabelScheme) -> list[str]:
    """Names of the encoded targets of a label scheme, from 0; with regions they are label values."""
    if not labels.has_regions:
        return ["background", *labels.names]
    known: Collection[int] = labels.known_values - {0, labels.ignore}
    return ["background", *(f"value {value}" for value in sorted(known))]


def _fitted(kind: str, features: Floats, classes: Classes) -> Any:
    """A classifier of scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning  # scikit-learn takes a while to load
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = (
        LogisticRegression(class_weight="balanced", max_iter=500)
        if kind == "linear"
        else KNeighborsClassifier(min(NEIGHBOURS, len(classes)))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps more would change the last digits
        return make_pipeline(StandardScaler(), classifier).fit(features, classes)


def _scored(
    classifiers: Mapping[str, Any], cases: Mapping[str, Voxels], names: Sequence[str], patients: Mapping[str, str]
) -> ProbeScore:
    """Scores of a kind of classifier, by weights."""
    right = {
        weights: {case: classifier.predict(one.features[weights]) == one.classes for case, one in cases.items()}
        for weights, classifier in classifiers.items()
    }
    accuracy = {
        weights: {case: _balanced_accuracy(hits, cases[case].classes) for case, hits in found.items()}
        for weights, found in right.items()
    }
    classes = np.concatenate([one.classes for one in cases.values()])
    return ProbeScore(
        accuracy={weights: fmean(found.values()) for weights, found in accuracy.items()},
        recall={
            weights: _recalls(np.concatenate(list(found.values())), classes, names) for weights, found in right.items()
        },
        difference=paired_difference(accuracy[PRETRAINED], accuracy[FRESH], groups=patients),
    )


def _balanced_accuracy(hits: npt.NDArray[np.bool_], classes: Classes) -> float:
    """Mean over the classes of the share of their voxels that was told rightly."""
    return fmean(float(hits[classes == one].mean()) for one in np.unique(classes))


def _recalls(hits: npt.NDArray[np.bool_], classes: Classes, names: Sequence[str]) -> dict[str, float]:
    """Share of the voxels of each class that was told rightly; NaN for classes that no scored case has."""
    found = {name: hits[classes == number] for number, name in enumerate(names)}
    return {name: float(one.mean()) if one.size else math.nan for name, one in found.items()}

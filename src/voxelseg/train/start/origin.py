"""Weights that a training may start from: where they lie, whose they are, and what they were trained on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from voxelseg.checkpoint import MODEL_FILE, Checkpoint, load_checkpoint
from voxelseg.data.labels import LabelScheme
from voxelseg.data.wording import some
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.files import sha256_of_file
from voxelseg.nets.official import convert, official_kind, read_official
from voxelseg.plan.plan import Plan

_REMEDY = (
    "Name the folder of a run or of a pre-training, a model file (RUN/fold_0/model.safetensors), or a file of the "
    "authors."
)
SPACING_TOLERANCE = 0.1
"""Spacings count as the same up to this share."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Weights to start from, under the names used here."""

    path: Path
    checksum: str
    """SHA-256 of what decides their meaning: of a file of the authors, or of a model of ours without its provenance."""
    what: str
    """For people: whose network they are of."""
    weights: Mapping[str, Tensor]
    kind: str | None = None
    """Whose code wrote a file of the authors; None for a model of ours."""
    checkpoint: Checkpoint | None = None
    """The model of ours."""

    @property
    def pretraining(self) -> Mapping[str, Any] | None:
        """How a model of ours was pre-trained; None if it was trained with labels, and for authors' files."""
        return None if self.checkpoint is None else self.checkpoint.pretraining


def origin_file(init: str, fold: int) -> Path:
    """The file that `transfer.init` means for a fold: that of the same fold, if `init` is the folder of a run.

    ConfigError if there is none.
    """
    path = Path(init)
    if path.is_file():
        return path
    for candidate in (path / MODEL_FILE, path / f"fold_{fold}" / MODEL_FILE):
        if candidate.is_file():
            return candidate
    if not path.exists():
        raise ConfigError(f"transfer.init: there is no {path}. {_REMEDY}")
    finished = _finished_folds(path)
    if finished:
        raise ConfigError(
            f"transfer.init: the run {path} has no finished model of fold {fold}. Train that fold first, or choose a "
            f"model for all folds, as {finished[0]}: held-out cases of this run may then be among those it has seen."
        )
    raise ConfigError(f"transfer.init: {path} holds no finished model. {_REMEDY}")


def origin_name(init: str, file: Path) -> str:
    """Name of one of the files that `transfer.init` may mean, below it if it is a folder."""
    return file.name if file == Path(init) else str(file.relative_to(init))


def origin_checksums(init: str, known: Collection[str] = ()) -> dict[str, str]:
    """Checksum of each file that `transfer.init` may mean, by its name: of every finished fold, if it is a run.

    Those of `known` names are not looked at.
    """
    path = Path(init)
    files = [path] if path.is_file() else [path / MODEL_FILE, *_finished_folds(path)]
    named = {origin_name(init, file): file for file in files if file.is_file()}
    return {name: _checksum(file) for name, file in named.items() if name not in known}


def _finished_folds(run: Path) -> list[Path]:
    return sorted(run.glob(f"fold_*/{MODEL_FILE}"))


def _checksum(file: Path) -> str:
    return load_checkpoint(file).fingerprint() if is_model_file(file) else sha256_of_file(file)


def is_model_file(path: Path) -> bool:
    """Whether a file is a model of ours rather than one of the authors; CheckpointError for a damaged safetensors."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return "voxelseg" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a file of weights ({error}). Restore it from a copy.") from error


def read_origin(path: Path, *, model: str) -> Origin:
    """The weights in `path`: a model of ours, or weights that the authors of the network `model` trained.

    ConfigError if no such authors' weights are known, CheckpointError for a damaged file or one of another network.
    """
    if is_model_file(path):
        checkpoint = load_checkpoint(path)
        return Origin(
            path=path,
            checksum=checkpoint.fingerprint(),
            what=_what(checkpoint),
            weights=checkpoint.weights,
            checkpoint=checkpoint,
        )
    kind = official_kind(model)
    if kind is None:
        raise ConfigError(
            f"transfer.init: {path} is no model of voxelseg, and no authors' weights are known for {model}. {_REMEDY}"
        )
    content = read_official(path)
    try:
        weights = convert(kind, content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Origin(path=path, checksum=sha256_of_file(path), what=f"the authors' {kind}", weights=weights, kind=kind)


def _what(checkpoint: Checkpoint) -> str:
    if checkpoint.pretraining is None:
        return checkpoint.model
    encoder = ", the encoder only" if checkpoint.pretrained_part == "encoder" else ""
    return f"{checkpoint.model}, pre-trained by {checkpoint.pretraining['method']}{encoder}"


def same_classes(origin: Origin, labels: LabelScheme) -> bool:
    """Whether the heads of `origin` tell the classes of `labels` apart, as far as is known: authors do not say.

    So it is for what a pre-training left: no heads that classes mean anything to.
    """
    if origin.checkpoint is None or origin.pretraining is not None:
        return True
    return origin.checkpoint.labels.classes == labels.classes


def differences(origin: Origin, plan: Plan) -> list[str]:
    """In what the images that `origin` was trained on differ from those of `plan`, in words; unknown for authors'."""
    if origin.checkpoint is None:
        unknown = "What the weights were trained on is not in the file"
        return [f"{unknown}: compare spacing, intensities, channels and the order of the classes yourself."]
    theirs = origin.checkpoint.plan
    found = []
    if any(abs(a - b) > SPACING_TOLERANCE * b for a, b in zip(theirs.spacing_mm, plan.spacing_mm, strict=True)):
        found.append(
            f"Trained at {_size(theirs.spacing_mm)} mm per voxel, here {_size(plan.spacing_mm)} mm: things look larger "
            f"or smaller. --set plan.spacing_mm={_list(theirs.spacing_mm)} takes over theirs."
        )
    if theirs.axes != plan.axes:
        found.append(
            f"Trained with canonical axes {_list(theirs.axes)} as D, H, W, here {_list(plan.axes)}"
            f"{_other_slices(origin, theirs, plan)}. --set plan.axes={_list(theirs.axes)} takes over theirs."
        )
    if _channels_differ(theirs.channels, plan.channels):
        found.append(f"Trained on the channels {', '.join(theirs.channels)}, here {', '.join(plan.channels)}.")
    if theirs.normalization != plan.normalization:
        here, there = (", ".join(rule.kind for rule in one.normalization) for one in (plan, theirs))
        with_numbers = " with other numbers" if here == there else ""
        found.append(f"Trained on intensities normalised by {there}, here by {here}{with_numbers}.")
    return found


def _channels_differ(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether they are of another number, or a channel that has a name on both sides has another one."""
    unnamed = [f"channel_{number}" for number in range(len(ours))]  # where a folder of scans does not name them
    return len(theirs) != len(ours) or any(
        there != here and name not in (there, here) for there, here, name in zip(theirs, ours, unnamed, strict=True)
    )


def _other_slices(origin: Origin, theirs: Plan, plan: Plan) -> str:
    """Words for slices that pre-training saw along another direction than the plan's axis of that number has."""
    axis = (origin.pretraining or {}).get("slice_axis")
    if axis is None or theirs.axes[axis] == plan.axes[axis]:
        return ""
    there, here = ("DHW"[one.axes.index(theirs.axes[axis])] for one in (theirs, plan))
    return f"; the slices that it learnt from follow one another along {there} there, along {here} here"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """SHA-256 of the files that weights were trained on, or what they started from, as far as is known."""

    labelled: frozenset[str] = frozenset()
    """Scans whose labels were learnt, and their label maps."""
    unlabelled: frozenset[str] = frozenset()
    """Scans of pre-trainings."""


def seen_inputs(origin: Origin) -> Seen:
    """What `origin` has seen."""
    if origin.checkpoint is None:
        return Seen()
    provenance = origin.checkpoint.provenance
    own = frozenset(one for files in provenance.get("train_cases_sha256", {}).values() for one in files)
    earlier = provenance.get("transfer") or {}
    labelled, unlabelled = (frozenset(earlier.get(key, ())) for key in ("seen_sha256", "seen_unlabelled_sha256"))
    if origin.pretraining is None:
        return Seen(labelled=labelled | own, unlabelled=unlabelled)
    return Seen(labelled=labelled, unlabelled=unlabelled | own)


def leaks(origin: Origin, held_out: Mapping[str, Sequence[str]]) -> list[str]:
    """A warning if cases that are to judge the training are among those that `origin` was trained on.

    `held_out` has the checksums of each case's files. Its first scan decides: label maps of several cases may be equal.
    """
    known = [case for case, files in held_out.items() if files[0] in seen_inputs(origin).labelled]
    if not known:
        return []
    warning = (
        f"{len(known)} of {len(held_out)} held-out cases were among those that the weights were trained on "
        f"({some(known)}): the scores of this fold will be too good. Start from the same fold of a run with the same "
        "folds, or from weights of other data."
    )
    return [warning]


def seen_without_labels(origin: Origin, held_out: Mapping[str, Sequence[str]]) -> list[str]:
    """A note if scans of cases that are to judge the training were pre-trained on: no label leaks, but it is told."""
    seen = seen_inputs(origin)
    known = [case for case, files in held_out.items() if files[0] in seen.unlabelled - seen.labelled]
    if not known:
        return []
    note = (
        f"The scans of {len(known)} of {len(held_out)} held-out cases were pre-trained on ({some(known)}): without "
        "their labels, so nothing leaks that is scored, but scans that nothing has seen may score lower."
    )
    return [note]


def _size(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)


def _list(values: Iterable[float]) -> str:
    return f"[{','.join(f'{value:g}' for value in values)}]"

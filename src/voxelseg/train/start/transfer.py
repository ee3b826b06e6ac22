"""Starting a training from weights that are there: a run of ours, one of its model files, or the authors' file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.table import Table
from rich.text import Text
from torch import Tensor

from voxelseg.data.labels import LabelScheme
from voxelseg.data.wording import some
from voxelseg.errors import CheckpointError
from voxelseg.nets import Network
from voxelseg.nets.official import differing_options
from voxelseg.nets.parts import Part, part_tensors
from voxelseg.plan.plan import Plan
from voxelseg.train.start.matching import CHANNELS, KERNELS, LARGER_KERNELS, Matches, is_mask, match_tensors
from voxelseg.train.start.origin import (
    Origin,
    differences,
    leaks,
    same_classes,
    seen_inputs,
    seen_without_labels,
)
from voxelseg.train.start.outcomes import OUTCOMES
from voxelseg.train.start.patterns import Patterns

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
SPARSITY_TOLERANCE = 0.01
"""Shares of inactive kernels count as the same up to this: in weights of the authors some active kernels are zero."""
_COUNTED: dict[Part | None, str] = {None: "weights", "all": "weights", "encoder": "encoder's weights"}
"""What the share counts, by what was pre-trained."""
_SHOWN = 3


class TransferConfig(BaseModel):
    """What a training starts from, and what of it is trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    init: str | None = None
    """Weights to start from: the folder of a run or of a pre-training, a model file, or a file of weights of the
    network's authors."""
    channels: Literal["same", "average"] = "same"
    """Of the input: same refuses weights for another number of channels; average gives each channel their mean."""
    grow_kernels: bool = False
    """Interpolate kernels of `init` that are smaller than those of the network (UpKern) instead of refusing them."""
    least_share: Share = 0.9
    """Share of the network's weights, without its heads, that `init` must have; less is refused. Of the encoder's, if
    only the encoder was pre-trained."""
    freeze: Patterns = ()
    """Parameters that are not trained: patterns of names such as "stem.*", or the word "encoder"."""
    lr_factors: dict[str, Positive] = {}
    """Pattern of names, or "encoder", to what the learning rate is multiplied by there; the last that fits counts."""

    @model_validator(mode="after")
    def _possible(self) -> "TransferConfig":
        fields = type(self).model_fields
        of_init = ("channels", "grow_kernels", "least_share")
        idle = [name for name in of_init if getattr(self, name) != fields[name].default]
        if idle and self.init is None:
            raise ValueError(f"{', '.join(idle)}: there is nothing to start from. Set init too")
        return self


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What became of every tensor when a training started from other weights."""

    path: str
    """Of the file with the weights."""
    checksum: str
    """SHA-256 of what decides their meaning."""
    what: str
    """Whose network they are of."""
    share: float
    """Of the network's weights without its heads that came from the file."""
    matched: tuple[str, ...]
    """Taken as they are."""
    grown: tuple[str, ...]
    """Kernels that were interpolated to a larger size."""
    averaged: tuple[str, ...]
    """Weights of the input that were averaged over its channels."""
    fresh_heads: tuple[str, ...]
    """Heads that keep their fresh weights: the file has none, or they tell other classes apart."""
    untrained: tuple[str, ...] = ()
    """Tensors that no pre-training of this kind trains, such as the decoder's: they keep their fresh weights."""
    missing: tuple[str, ...]
    """Other tensors that the file lacks: they keep their fresh weights."""
    mismatched: tuple[str, ...]
    """Other tensors of another shape in the file: they keep their fresh weights."""
    left_out: tuple[str, ...]
    """In the file only."""
    warnings: tuple[str, ...]
    """What may make the weights less useful than they seem, or the scores too good."""
    seen_sha256: tuple[str, ...]
    """Of the scans and label maps that the weights were trained on, as far as is known."""
    seen_unlabelled_sha256: tuple[str, ...] = ()
    """Of the scans that the weights were pre-trained on without labels."""
    notes: tuple[str, ...] = ()
    """What is good to know of the weights and the scores, and no reason to worry."""
    part: str = "weights"
    """What `share` counts, in words."""

    def table(self) -> Table:
        """Number and first names of the tensors by outcome, and the warnings."""
        table = Table(
            title=Text(f"Weights from {self.path} ({self.what})"),
            caption=Text(
                "\n".join((f"{self.share:.1%} of the {self.part} without heads.", *self.warnings, *self.notes))
            ),
            caption_justify="left",
        )
        table.add_column("Tensors")
        table.add_column("Number", justify="right")
        table.add_column("Such as", overflow="fold")
        for outcome, words in OUTCOMES.items():
            names: tuple[str, ...] = getattr(self, outcome)
            if names:
                table.add_row(words, str(len(names)), Text(", ".join(names[:_SHOWN])))
        return table


def initial_weights(
    network: Network,
    origin: Origin,
    config: TransferConfig,
    *,
    plan: Plan,
    labels: LabelScheme,
    held_out: Mapping[str, Sequence[str]] | None = None,
) -> TransferReport:
    """Load what fits of `origin` into `network`; returns what became of every tensor.

    Heads start fresh where the classes are others or the file has none. `plan` and `labels` are those of the training
    to come, `held_out` the checksums of the files that are to judge it, by case. CheckpointError, and nothing is
    loaded, for another number of channels, kernel size or sparsity without the option that allows it, and if less than
    `least_share` of the weights is there.
    """
    report, taken = match_weights(network, origin, config, plan=plan, labels=labels, held_out=held_out)
    network.load_state_dict({**network.state_dict(), **taken})
    return report


def match_weights(
    network: Network,
    origin: Origin,
    config: TransferConfig,
    *,
    plan: Plan,
    labels: LabelScheme,
    held_out: Mapping[str, Sequence[str]] | None = None,
) -> tuple[TransferReport, dict[str, Tensor]]:
    """What `initial_weights` would do, and the tensors that it would load."""
    own = network.state_dict()
    given = _without_full_masks(origin.weights, own)
    _check_sparsity(origin, given, own)
    pretrained = None if origin.checkpoint is None else origin.checkpoint.pretrained_part
    matches = match_tensors(
        network,
        given,
        heads_fit=same_classes(origin, labels),
        average=config.channels == "average",
        grow=config.grow_kernels,
        part=None if pretrained is None else part_tensors(network, pretrained),
    )
    _refuse_unfit(origin, matches.refused)
    _check_finite(origin, matches.taken)
    if matches.share < config.least_share:
        raise CheckpointError(_too_little(origin, network, matches, config.least_share, plan))
    outcomes: dict[str, tuple[str, ...]] = {name: tuple(found) for name, found in matches.outcomes.items()}
    seen, judges = seen_inputs(origin), held_out or {}
    report = TransferReport(
        path=str(origin.path),
        checksum=origin.checksum,
        what=origin.what,
        share=matches.share,
        warnings=(*_option_warnings(origin, network), *differences(origin, plan), *leaks(origin, judges)),
        notes=(*_other_widths(origin, network, matches), *seen_without_labels(origin, judges)),
        seen_sha256=tuple(sorted(seen.labelled)),
        seen_unlabelled_sha256=tuple(sorted(seen.unlabelled)),
        part=_COUNTED[pretrained],
        **outcomes,
    )
    return report, matches.taken


_REFUSALS = {
    CHANNELS: "was trained on another number of input channels ({names}). Start from weights for these channels, or "
    "give every channel the mean of theirs with --set transfer.channels=average.",
    KERNELS: "has smaller kernels ({number}: {names}). Interpolate them with --set transfer.grow_kernels=true, or "
    "train with the same --set model.kernel_size.",
    LARGER_KERNELS: "has larger kernels ({number}: {names}), and kernels can only grow. Train with the same --set "
    "model.kernel_size, and a plan that lets them be as large along every axis.",
}


def _refuse_unfit(origin: Origin, refused: Mapping[str, Sequence[str]]) -> None:
    """CheckpointError if there are tensors that only an option would let through."""
    for reason, names in refused.items():
        if names:
            raise CheckpointError(f"{origin.path}: {_REFUSALS[reason].format(names=some(names), number=len(names))}")


def _check_finite(origin: Origin, taken: Mapping[str, Tensor]) -> None:
    """CheckpointError if a training with these weights could only diverge."""
    spoilt = [name for name, value in taken.items() if not value.isfinite().all()]
    if spoilt:
        raise CheckpointError(
            f"{origin.path}: holds NaN or infinity ({some(spoilt)}). Start from weights of a training that went well."
        )


def _without_full_masks(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` without masks that say nothing: those of dense layers, where the network `own` has none."""
    return {
        name: value for name, value in weights.items() if not (is_mask(name) and name not in own and bool(value.all()))
    }


def _check_sparsity(origin: Origin, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """CheckpointError unless the layers that both networks have are sparse in both, and together as sparse.

    Not each of them: in weights of E2ENet's authors layers of 48 channels have a sparsity of their own.
    """
    shared = {name for name in {*given, *own} if is_mask(name) and _same_kernels(name, given, own)}
    theirs, ours = ({name: one[name] for name in shared if name in one} for one in (given, own))
    if _sparse(theirs) == _sparse(ours) and abs(_inactive(theirs) - _inactive(ours)) <= SPARSITY_TOLERANCE:
        return
    remedy = (
        f"with --set sparse.sparsity={_inactive(theirs):.2g}, and sparse.layers where the network names none itself"
        if _sparse(theirs)
        else "a dense network: without sparse.layers, or with --set sparse.sparsity=0 where the network has its own"
    )
    raise CheckpointError(
        f"{origin.path}: {_in_words(theirs)}, and the network to train {_in_words(ours)}. Start from weights of the "
        f"same layers and sparsity, or train {remedy}."
    )


def _same_kernels(mask: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether the weight that belongs to a mask has as many kernels in both networks."""
    weight = f"{mask.rpartition('.')[0]}.weight"
    return weight in given and weight in own and given[weight].shape[:2] == own[weight].shape[:2]


def _sparse(masks: Mapping[str, Tensor]) -> set[str]:
    """Names of the masks that leave something out."""
    return {name for name, mask in masks.items() if not mask.all()}


def _inactive(masks: Mapping[str, Tensor]) -> float:
    """Share of the kernels that are inactive, of all layers with masks together; 0 if there are none."""
    kernels = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / kernels if kernels else 0.0


def _in_words(masks: Mapping[str, Tensor]) -> str:
    if not masks:
        return "has no sparse layers"
    layers = f"{len(masks)} sparse layer{'s' if len(masks) != 1 else ''}"
    return f"has {layers} of sparsity {_inactive(masks):.2g}"


def _option_warnings(origin: Origin, network: Network) -> list[str]:
    """Options in which the network computes something else than the one that the weights were trained in."""
    if origin.kind is not None:
        differing = differing_options(network, origin.kind)
        return [f"The authors' code computes something else: it has {' and '.join(differing)}."] if differing else []
    differing = _differing(origin, network)
    return [f"Trained with other options: {', '.join(differing)}."] if differing else []


def _other_widths(origin: Origin, network: Network, matches: Matches) -> list[str]:
    """A note if what was pre-trained starts fresh, since its widths follow the number of classes."""
    fresh = [name for name in matches.outcomes["fresh_heads"] if name in origin.weights]
    if origin.pretraining is None or not fresh:
        return []
    config: Any = network.config
    here = config.num_classes
    note = (
        f"{len(fresh)} of the pre-trained tensors start fresh ({some(fresh)}): their widths follow the number of "
        f"classes, {origin.pretraining['num_classes']} in the pre-training, {here} here. A pre-training with --set "
        f"pretrain.num_classes={here} keeps them."
    )
    return [note]


_SAID_OTHERWISE = {"in_channels", "num_classes", "deep_supervision", "image_size", "checkpointing", "kernel_size"}
"""Options that are no reason to worry, or whose tensors were said to have been grown or refused."""


def _differing(origin: Origin, network: Network) -> list[str]:
    """Options of `origin` that the network has otherwise, as "width 16 (here 32)"."""
    if origin.checkpoint is None:
        return []
    config: Any = network.config
    here, there = _plain(asdict(config)), _plain(origin.checkpoint.model_options)
    shared = [name for name in there if name in here and name not in _SAID_OTHERWISE]
    return [f"{name} {there[name]} (here {here[name]})" for name in shared if there[name] != here[name]]


def _plain(value: Any) -> Any:
    """`value` with lists in place of tuples, as it comes back from JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _too_little(origin: Origin, network: Network, matches: Matches, least: float, plan: Plan) -> str:
    lacking = {OUTCOMES[outcome]: matches.outcomes[outcome] for outcome in ("missing", "mismatched")}
    found = [f"{words}: {some(names)}" for words, names in lacking.items() if names]
    differing = _differing(origin, network)
    options = [f"It was trained with {', '.join(differing)}."] if differing else []
    otherwise = "".join(f" {sentence}" for sentence in (*options, *differences(origin, plan)))  # levels follow the plan
    checkpoint = origin.checkpoint
    model, part = ("", None) if checkpoint is None else (f" (--model {checkpoint.model})", checkpoint.pretrained_part)
    return (
        f"{origin.path} ({origin.what}) has {matches.share:.1%} of the {_COUNTED[part]} of this "
        f"{type(network).__name__} without heads, less than {least:.0%} ({'; '.join(found)}).{otherwise} Train the "
        f"same network{model} with the same options, or lower transfer.least_share."
    )

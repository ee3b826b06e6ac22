"""What is equal for all contestants of a benchmark, and what is not, in words for its reader."""

from collections.abc import Mapping, Sequence

import yaml

from voxelseg.benchmark.design import Design
from voxelseg.data.wording import counted
from voxelseg.errors import VoxelsegError
from voxelseg.train.start.origin import leaks, origin_file, read_origin, seen_without_labels

_NNUNET = (
    "nnU-Net: the same folds, length, threads, processes that make patches, and scorer; spacing, patch, batch, "
    "network, augmentation and loss are its own. Its learning rate is annealed within the length, in which it has no "
    "running validation."
)


def fairness(design: Design) -> list[str]:
    """Sentences on data, plan, recipe and length, and on what single contestants have of their own."""
    ours = [one for one in design.entrants if not one.is_nnunet]
    with_nnunet = len(ours) < len(design.entrants)
    own = "; ".join(f"{one.name} ({', '.join(one.settings)})" for one in design.entrants if one.settings)
    return [
        _alike(design, "All contestants but nnU-Net" if with_nnunet else "All contestants"),
        _length(design),
        *_deeply_supervised(design),
        *([f"Of their own: {own}."] if own else []),
        *_learnt_before(design),
        *([_NNUNET] if with_nnunet else []),
        *_mirrored(design),
    ]


def seen_before(design: Design, inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences on contestants whose weights have seen held-out cases; `inputs` has the checksums of each case's files.

    Weights that are no longer there, as after their trainings, say nothing.
    """
    found: dict[str, None] = {}
    for one in design.entrants:
        for fold in design.folds if one.init is not None else ():
            try:
                origin = read_origin(origin_file(str(one.init), fold), model=one.model)
            except VoxelsegError:
                continue
            held_out = {case: inputs[case] for case in design.held_out[fold]}
            said = (*leaks(origin, held_out), *seen_without_labels(origin, held_out))
            found |= {f"{one.name}: {sentence}": None for sentence in said}
    return list(found)


def _alike(design: Design, who: str) -> str:
    patch, folds = " x ".join(map(str, design.plan.patch_size)), counted(len(design.folds), "fold")
    return (
        f"{who}: the same {folds}, preprocessed scans, patches of {patch} voxels, which every network takes, in "
        f"batches of {design.plan.batch_size}, which fit with the hungriest network, augmentation, loss, optimizer, "
        "schedule and prediction, but for what is listed as their own."
    )


def _length(design: Design) -> str:
    if not design.length.in_minutes:
        return f"Length: {design.length}, however long these take."
    jobs = design.pace["jobs"]
    beside = f", {counted(jobs, 'training')} at a time" if jobs > 1 else ""
    return (
        f"Length: {design.length}, steps and running validation, on {design.pace['device']} with "
        f"{counted(design.pace['threads'], 'thread')}{beside}; planning, preprocessing and the prediction of the "
        "held-out cases are not in it. The learning rate follows the time, so that every training comes to its end."
    )


def _deeply_supervised(design: Design) -> list[str]:
    """Who has deep supervision and who has not, where they differ."""
    having = {name: one["deep_supervision"] for name, one in design.reasons.items()}
    heads, none = ([name for name, has in having.items() if has is wanted] for wanted in (True, False))
    if not heads or not none:
        return []
    has = "has" if len(none) == 1 else "have"
    return [f"Deep supervision: of {', '.join(heads)}; not of {', '.join(none)}, which {has} no heads for it here."]


def _mirrored(design: Design) -> list[str]:
    """Whose predictions nnU-Net's are ahead of by mirroring, if any are."""
    nnunet = [one.name for one in design.entrants if one.is_nnunet and one.nnunet_options.get("mirroring", True)]
    plain = [one.name for one in design.entrants if not one.is_nnunet and not _averages(design.settings_of(one))]
    if not nnunet or not plain:
        return []
    said = (
        f"In favour of {', '.join(nnunet)}: the predictions of the held-out cases are averaged over mirrored scans, as "
        f"nnU-Net does; those of {', '.join(plain)} are not. With --set predict.tta=true they are, too."
    )
    return [said]


def _averages(settings: Sequence[str]) -> bool:
    values = [one.partition("=")[2] for one in settings if one.partition("=")[0].strip() == "predict.tta"]
    return bool(values and yaml.safe_load(values[-1]))


def _learnt_before(design: Design) -> list[str]:
    learnt = "; ".join(f"{one.name} ({one.pretrain})" for one in design.entrants if one.pretrain is not None)
    started = "; ".join(f"{one.name} ({one.init})" for one in design.entrants if one.init is not None)
    before = (
        "Pre-trained on the training scans of each fold without their labels, once for all seeds, as long as the "
        f"training itself: {learnt}."
    )
    elsewhere = f"Started from weights of which this benchmark knows nothing more: {started}."
    return [*([before] if learnt else []), *([elsewhere] if started else [])]

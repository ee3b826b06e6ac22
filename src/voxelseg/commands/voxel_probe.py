"""The command `probe`: what the features of a pre-training tell apart, without training the network."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelseg.checkpoint import MODEL_FILE, Checkpoint, load_checkpoint
from voxelseg.commands.arguments import choose_device
from voxelseg.commands.display import PathLike, counting_bar, say
from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import splits_of
from voxelseg.errors import ConfigError
from voxelseg.files import locked, sha256_of_file, write_json
from voxelseg.nets import Network
from voxelseg.nets.kernel_masks import add_masks, sparse_weights
from voxelseg.preprocess.store import StoredCase, store_dataset
from voxelseg.pretrain.backbone import load_backbone
from voxelseg.pretrain.probe import FRESH, PRETRAINED, ProbeResult
from voxelseg.pretrain.probe import probe as probe_features
from voxelseg.statistics.paired import difference_in_words
from voxelseg.train.fitting import input_sha256
from voxelseg.train.start.origin import read_origin, seen_without_labels

_log = logging.getLogger(__name__)
PROBE_FOLDER = "probe"
PROBE_FILE = "probe.json"


def probe(
    pre: PathLike,
    data: PathLike,
    *,
    fold: int = 0,
    cases: int = 10,
    seed: int = 0,
    device: str = "auto",
    workers: int = 2,
    console: Console | None = None,
) -> ProbeResult:
    """Tell the classes of single voxels by the frozen features of the pre-training in folder `pre`, and by fresh ones.

    Classifiers are fitted on at most so many `cases` of the labelled data set at `data` that `fold` trains on, and
    scored on as many that it holds out; both are drawn. The cases are preprocessed as the pre-training's scans were,
    into `pre`/probe. Writes `pre`/probe.json, which the report shows.

    Raises CheckpointError if there are no pre-trained weights, ConfigError for impossible options and for data of other
    channels, DataError for data that cannot be used.
    """
    if cases < 2:
        raise ConfigError(f"--cases {cases}: expected 2 or more.")
    folder = Path(pre)
    checkpoint, on = load_checkpoint(folder / MODEL_FILE), choose_device(device)
    trained = load_backbone(checkpoint)
    dataset = read_dataset(data)
    if len(dataset.channels) != len(checkpoint.plan.channels):
        raise ConfigError(
            f"{dataset.source} has {len(dataset.channels)} channels ({', '.join(dataset.channels)}), the pre-training "
            f"{len(checkpoint.plan.channels)} ({', '.join(checkpoint.plan.channels)}). Probe with data of these."
        )
    fit, score = _chosen(dataset, fold, cases, seed)
    _check_patients(score, fold)
    networks = {PRETRAINED: trained.to(on), FRESH: _fresh(trained, seed).to(on)}
    part = checkpoint.pretrained_part
    assert part is not None, "load_backbone refuses others"
    with locked(folder / PROBE_FOLDER, wait=True):
        stored = _stored(replace(dataset, cases=(*fit, *score)), checkpoint, folder / PROBE_FOLDER, workers, console)
        with counting_bar(console, "probing", total=len(fit) + len(score)) as update:
            found = probe_features(
                [stored[case.id] for case in fit],
                [stored[case.id] for case in score],
                networks,
                part=part,
                crop_size=checkpoint.plan.patch_size,
                labels=dataset.labels,
                patients={case.id: case.patient for case in score},
                seed=seed,
                device=on,
                progress=lambda done, case: update(done, note=case),
            )
    origin = read_origin(folder / MODEL_FILE, model=checkpoint.model)
    notes = seen_without_labels(origin, {case.id: input_sha256(stored[case.id]) for case in score})
    for note in notes:
        _log.warning("%s", note)
    weights = sha256_of_file(folder / MODEL_FILE)
    about = {"data": dataset.name, "fold": fold, "seed": seed, "weights_sha256": weights, "notes": notes}
    write_json(folder / PROBE_FILE, {**about, **found.to_dict()})
    say(console, f"Wrote {folder / PROBE_FILE}.", ["report", pre, "--out", folder / "report.html"])
    return found


def _chosen(dataset: Dataset, fold: int, number: int, seed: int) -> tuple[list[Case], list[Case]]:
    """At most so many drawn training cases of a fold, and as many that it holds out."""
    folds = splits_of(dataset)
    if not 0 <= fold < len(folds):
        raise ConfigError(f"fold {fold}: the data set has folds 0 to {len(folds) - 1}.")
    generator, known = np.random.default_rng(seed), {case.id: case for case in dataset.cases}
    sides = (folds[fold].train, folds[fold].validation)
    train, held_out = ([known[ids[place]] for place in generator.permutation(len(ids))[:number]] for ids in sides)
    return train, held_out


def _check_patients(score: Sequence[Case], fold: int) -> None:
    if len({case.patient for case in score}) < 2:
        raise ConfigError(
            f"the cases drawn from those that fold {fold} holds out are of one patient: no difference could be told "
            "from chance. Choose another --fold, or more --cases."
        )


def _fresh(trained: Network, seed: int) -> Network:
    """The same network with fresh weights, which are not those that the pre-training with this seed began with.

    Layers that settings made sparse are so here, too, with as many active kernels, drawn anew.
    """
    network_class: Any = type(trained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng((seed, 1)).integers(2**31)))
        fresh: Network = network_class(trained.config)
        own = sparse_weights(fresh)
        for layer, (_, mask) in sparse_weights(trained).items():
            if layer not in own:
                add_masks(fresh, [layer], 1 - float(mask.float().mean()))
    return fresh


def _stored(
    dataset: Dataset, checkpoint: Checkpoint, folder: Path, workers: int, console: Console | None
) -> dict[str, StoredCase]:
    """The cases, preprocessed as the pre-training's scans were."""
    with counting_bar(console, "preprocessing", total=len(dataset.cases)) as update:
        return store_dataset(dataset, checkpoint.plan, folder / "store", workers=workers, progress=update)


def probe_table(found: ProbeResult) -> Table:
    """Accuracy of each classifier with both weights, and the difference."""
    table = Table(
        title=f"Probe: {found.voxels_scored} voxels of {found.cases_scored} cases; guessing {found.chance:.3f}",
        caption=Text("Accuracy: mean over the classes of the share of voxels told rightly, then over the cases."),
    )
    for title in ("Classifier", PRETRAINED, FRESH, "difference [95 %]"):
        table.add_column(title)
    for kind, one in found.probes.items():
        accuracy = (f"{one.accuracy[weights]:.3f}" for weights in (PRETRAINED, FRESH))
        table.add_row(kind, *accuracy, difference_in_words(one.difference, digits=3))
    return table

"""Cost of masked-cluster pre-training: fitting clusterers, labelling crops, and both heads.

    python benchmarks/pretraining.py --threads 2 --out pretraining.json
    python benchmarks/pretraining.py --only heads --head-crop 96 96 96 --head-clusterers 80 --device cuda

Fitting and labelling are compared with the released code's scheme: float64 slices, scikit-learn's MiniBatchKMeans with
minibatches of 20 slices, 50 starts, an end after 100 minibatches without improvement and no reassignment, and one call
of `predict` for each clusterer; `voxelseg` is what `voxelseg pretrain` runs, with its defaults. Slices are those of
smooth random volumes with noise. Seconds of a fit are those of one clusterer; what counts besides is how far slices lie
from their centres, and how many clusters stay without a slice.

Of the heads, weights, multiply-accumulates and what the forward pass keeps for the backward pass are counted without
computing, for the paper's size (96 x 96 x 96, 80 clusterers of 80 to 500 clusters) and for `--head-crop`; for the
latter a step forward and backward is timed, too, and the largest memory seen beyond the features. 37 % of the slices
are masked, as in the paper.

Every measurement has a process of its own; forms take turns, `--repeats` times, and medians are printed. With
`--threads 1` processor seconds are counted on a CPU: other processes then disturb little.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from voxelseg.files import write_json
from voxelseg.geometry import Shape
from voxelseg.nets import create_model
from voxelseg.nets.complexity import count
from voxelseg.parallel import call_in_process
from voxelseg.pretrain.clusters.kmeans import fit_kmeans
from voxelseg.pretrain.clusters.labels import Clusterers
from voxelseg.pretrain.clusters.settings import ClusterConfig
from voxelseg.pretrain.heads import PaperHead, SliceHead

Rows = npt.NDArray[np.floating[Any]]

RELEASED: dict[str, Any] = {
    "batch_size": 20,
    "n_init": 50,
    "max_iter": 350,
    "tol": 0.0,
    "max_no_improvement": 100,
    "reassignment_ratio": 0.0,
}
"""Settings of MiniBatchKMeans in the released code."""
PARTS = ("fit", "labels", "heads")
PAPER_CROP: Shape = (96, 96, 96)
PAPER_CLUSTERERS = 80
LEAST_CLUSTERS, MOST_CLUSTERS = 80, 500
MASKED_SHARE = 37.3 / 96
"""Mean share of the masked slices with the paper's settings."""
_DEPTH = 48
"""Slices of a random volume."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement."""

    part: str
    form: str
    threads: int
    device: str
    slices: int
    """That a clusterer is fitted on."""
    clusters: int
    """Of the one that is fitted."""
    side: int
    """Of a slice, in voxels."""
    crop_slices: int
    """Of the crop that is labelled."""
    clusterers: int
    """That label, with 80 to 500 clusters."""
    head_crop: Shape
    head_clusterers: int
    features: int
    """Channels that a head sees."""


def measure(task: Task) -> dict[str, float]:
    """Seconds, MB beyond what was there before, and what tells whether the result is good. Changes the process."""
    torch.set_num_threads(task.threads)
    parts = {"fit": _measured_fit, "labels": _measured_labels, "heads": _measured_head}
    return parts[task.part](task)


def random_slices(number: int, side: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Slices (number, side * side) of smooth random volumes, with noise."""
    generator = torch.Generator().manual_seed(seed)
    rows = np.empty((number, side * side), dtype=np.float32)
    for first in range(0, number, _DEPTH):
        coarse = torch.randn(1, 1, 6, 12, 12, generator=generator)
        volume = F.interpolate(coarse, size=(_DEPTH, side, side), mode="trilinear")[0, 0]
        volume += 0.1 * torch.randn(volume.shape, generator=generator)
        part = volume.flatten(1)[: number - first]
        rows[first : first + len(part)] = part.numpy()
    return rows


def cluster_numbers(number: int) -> list[int]:
    """Clusters of so many clusterers, drawn from the paper's range."""
    drawn = np.random.default_rng(0).integers(LEAST_CLUSTERS, MOST_CLUSTERS + 1, size=number)
    return [int(one) for one in drawn]


def _timed(function: Callable[[], Any], task: Task) -> tuple[Any, dict[str, float]]:
    """What `function` returns, its seconds, and MB at its peak beyond what there was before."""
    device = torch.device(task.device)
    on_gpu = device.type == "cuda"
    clock = time.process_time if task.threads == 1 and not on_gpu else time.perf_counter
    before, start = _memory_mb(device), clock()
    result = function()
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = clock() - start
    return result, {"seconds": seconds, "peak_mb": max(_memory_mb(device, peak=True) - before, 0.0)}


def _memory_mb(device: torch.device, *, peak: bool = False) -> float:
    """MB of 10^6 bytes that the process holds, or has held at most."""
    if device.type == "cuda":
        return (torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)) / 1e6
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024 / 1e6


def _measured_fit(task: Task) -> dict[str, float]:
    task = replace(task, device="cpu")  # scikit-learn has no other
    rows = random_slices(task.slices, task.side, seed=0)
    released = task.form == "released"
    fit = _released_fit if released else _own_fit
    given = rows.astype(np.float64) if released else rows
    fit(given[: 6 * task.clusters], 2)  # imports, and starts the threads
    (centres, labels), found = _timed(lambda: fit(given, task.clusters), task)
    distance = float(np.mean([np.square(row - centres[label]).sum() for row, label in zip(rows, labels, strict=True)]))
    return {**found, "distance": distance, "empty": task.clusters - len(np.unique(labels))}


def _released_fit(rows: Rows, clusters: int) -> tuple[Rows, npt.NDArray[np.integer[Any]]]:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(clusters, init_size=3 * clusters, random_state=42, **RELEASED).fit(rows)
    return model.cluster_centers_, model.labels_


def _own_fit(rows: Rows, clusters: int) -> tuple[Rows, npt.NDArray[np.integer[Any]]]:
    return fit_kmeans(rows.astype(np.float32, copy=False), clusters, ClusterConfig(), seed=42)


def _measured_labels(task: Task) -> dict[str, float]:
    """The centres are slices, so that all clusterers have had the same fit in both forms."""
    from sklearn.cluster import MiniBatchKMeans

    numbers = cluster_numbers(task.clusterers)
    rows = random_slices(MOST_CLUSTERS + task.crop_slices, task.side, seed=0)
    crop, candidates = rows[: task.crop_slices], rows[task.crop_slices :]
    order = [np.random.default_rng(index).permutation(len(candidates))[:k] for index, k in enumerate(numbers)]
    models = []
    for chosen in order:
        centres = candidates[chosen].astype(np.float64)
        # Without reassignment, which may make two centres equal: either of them would be right.
        model = MiniBatchKMeans(len(centres), init=centres, n_init=1, max_iter=1, reassignment_ratio=0, random_state=0)
        models.append(model.fit(centres))
    found = [torch.from_numpy(model.cluster_centers_.astype(np.float32)) for model in models]
    if task.form == "released":
        doubled = crop.astype(np.float64)
        labels, result = _timed(lambda: np.stack([model.predict(doubled) for model in models], axis=1), task)
        return result
    device = torch.device(task.device)
    ours = Clusterers(torch.cat(found), numbers, torch.ones(sum(numbers), dtype=torch.int64))
    given = torch.from_numpy(crop)
    ours.labels(given[:2].to(device))  # moves the centres, and starts the threads
    labels, result = _timed(lambda: ours.labels(given.to(device)).cpu().numpy(), task)
    expected = np.stack([model.predict(crop.astype(np.float64)) for model in models], axis=1)
    return {**result, "equal": float((labels == expected).mean())}


def _measured_head(task: Task) -> dict[str, float]:
    device = torch.device(task.device)
    torch.manual_seed(0)
    head = head_of(task.form, task.head_crop, task.head_clusterers, task.features).to(device)
    features = torch.randn(1, task.features, *task.head_crop, device=device, requires_grad=True)
    chosen = masked_slices(task.head_crop[0]).to(device)
    before = _memory_mb(device)
    for _ in range(2):  # the first warms up, and its memory counts
        head.zero_grad(set_to_none=True)
        features.grad = None
        _, found = _timed(lambda: _step(head, features, chosen), task)
    return {**found, "peak_mb": _memory_mb(device, peak=True) - before}


def _step(head: nn.Module, features: Tensor, chosen: Tensor) -> None:
    logits = head(features, chosen)
    logits.masked_fill(logits.isinf(), 0).square().mean().backward()


def head_of(name: str, crop: Shape, num_clusterers: int, num_features: int) -> nn.Module:
    """A head for slices along D."""
    sizes = cluster_numbers(num_clusterers)
    if name == "paper":
        return PaperHead(num_features, sizes, crop_size=crop, slice_axis=0, num_classes=MOST_CLUSTERS)
    return SliceHead(num_features, sizes, crop_size=crop, slice_axis=0)


def masked_slices(number: int) -> Tensor:
    """The first ones (1, number) of all slices, as many as are masked on average."""
    return torch.arange(number)[None] < round(MASKED_SHARE * number)


def counted_head(name: str, crop: Shape, num_clusterers: int, num_features: int) -> dict[str, float]:
    """Millions of weights, 10^9 multiply-accumulates, and MB kept for the backward pass; nothing is computed."""
    with torch.device("meta"):
        head = head_of(name, crop, num_clusterers, num_features)
        features = torch.empty(1, num_features, *crop, requires_grad=True)
    own = {features.untyped_storage(), *(one.untyped_storage() for one in (*head.parameters(), *head.buffers()))}
    kept = set()
    number = int(masked_slices(crop[0]).sum())

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage() not in own:
            kept.add(tensor.untyped_storage())
        return tensor

    # A mask without values selects an unknown number of slices, positions do not.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as flops:
        head(features, (torch.zeros(number, dtype=torch.int64), torch.arange(number)))
    return {
        "parameters_m": sum(one.numel() for one in head.parameters()) / 1e6,
        "gmacs": flops.get_total_flops() / 2e9,
        "kept_mb": sum(storage.nbytes() for storage in kept) / 1e6,
    }


def medians(task: Task, forms: Sequence[str], repeats: int) -> dict[str, dict[str, float]]:
    """Of all that is measured, by form; the forms take turns."""
    found: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for _ in range(repeats):
        for form in forms:
            found[form].append(call_in_process(measure, replace(task, form=form)))
    return {
        form: {name: statistics.median(one[name] for one in many) for name in many[0]} for form, many in found.items()
    }


def _print_pair(found: dict[str, dict[str, float]], extra: dict[str, str]) -> None:
    print(f"{'':12}{'s':>10}{'ratio':>8}{'peak MB':>10}" + "".join(f"{title:>20}" for title in extra.values()))
    for form, values in found.items():
        ratio = found["released"]["seconds"] / values["seconds"]
        more = "".join(f"{values[name]:20.6g}" if name in values else f"{'-':>20}" for name in extra)
        print(f"{form:12}{values['seconds']:10.4f}{ratio:8.2f}{values['peak_mb']:10.0f}{more}")


def _print_heads(rows: Sequence[dict[str, Any]]) -> None:
    titles = ("M weights", "GMAC", "kept MB", "peak MB", "s")
    print(f"{'head':8}{'crop':>14}{'clusterers':>12}" + "".join(f"{title:>11}" for title in titles))
    for row in rows:
        values = [row.get(name) for name in ("parameters_m", "gmacs", "kept_mb", "peak_mb", "seconds")]
        numbers = "".join(f"{'-':>11}" if value is None else f"{value:11.3f}" for value in values)
        print(f"{row['head']:8}{'x'.join(map(str, row['crop'])):>14}{row['clusterers']:12}{numbers}")


def _fit_part(task: Task, repeats: int) -> dict[str, Any]:
    print(f"\nfit of a clusterer: {task.clusters} clusters, {task.slices} slices of {task.side} x {task.side}")
    found = medians(replace(task, part="fit"), ("released", "voxelseg"), repeats)
    _print_pair(found, {"distance": "mean sq. distance", "empty": "empty clusters"})
    return found


def _labels_part(task: Task, repeats: int) -> dict[str, Any]:
    number = sum(cluster_numbers(task.clusterers))
    size = f"{task.crop_slices} slices of {task.side} x {task.side}"
    print(f"\nlabels of a crop: {size}, {task.clusterers} clusterers with {number} clusters")
    found = medians(replace(task, part="labels"), ("released", "voxelseg"), repeats)
    _print_pair(found, {"equal": "equal labels"})
    return found


def _heads_part(task: Task, repeats: int) -> list[dict[str, Any]]:
    logonet = count(create_model("logonet"), PAPER_CROP)
    kept_gb = logonet.kept_bytes / 1e9
    print(f"\nheads: {task.features} features; LoGoNet itself: {logonet.macs / 1e9:.0f} GMAC, keeps {kept_gb:.2f} GB")
    found = medians(replace(task, part="heads"), ("paper", "slice"), repeats)
    rows: list[dict[str, Any]] = []
    for crop, clusterers in dict.fromkeys(((PAPER_CROP, PAPER_CLUSTERERS), (task.head_crop, task.head_clusterers))):
        for name in ("paper", "slice"):
            measured = found[name] if (crop, clusterers) == (task.head_crop, task.head_clusterers) else {}
            counted = counted_head(name, crop, clusterers, task.features)
            rows.append({"head": name, "crop": crop, "clusterers": clusterers, **counted, **measured})
    _print_heads(rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and write them with the machine's name to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of the one-product labels and of the heads")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slices", type=int, default=2304, help="that a clusterer is fitted on; 43,200 in the paper")
    parser.add_argument("--clusters", type=int, default=290, help="of the clusterer that is fitted")
    parser.add_argument("--side", type=int, default=96, help="of a slice in voxels")
    parser.add_argument("--crop-slices", type=int, default=96)
    parser.add_argument("--clusterers", type=int, default=16, help="that label; 80 in the paper")
    parser.add_argument("--head-crop", type=int, nargs=3, default=(32, 32, 32), metavar=("D", "H", "W"))
    parser.add_argument("--head-clusterers", type=int, default=8)
    parser.add_argument("--features", type=int, default=14)
    parser.add_argument("--out", type=Path)
    given = vars(parser.parse_args(arguments))
    only, repeats, out = given.pop("only"), given.pop("repeats"), given.pop("out")
    task = Task(part="", form="", **{**given, "head_crop": tuple(given["head_crop"])})
    on_gpu = torch.device(task.device).type == "cuda"
    machine = torch.cuda.get_device_name(task.device) if on_gpu else platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, {task.threads} threads")
    measured = {"fit": _fit_part, "labels": _labels_part, "heads": _heads_part}
    found = {name: measured[name](task, repeats) for name in PARTS if name in only}
    record = {"machine": machine, "torch": torch.__version__, "repeats": repeats, **given, **found}
    if out is not None:
        write_json(out, record)
    return record


if __name__ == "__main__":
    main()

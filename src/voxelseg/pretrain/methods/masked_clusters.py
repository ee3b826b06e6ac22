"""Masked clusters: tell of masked slices which cluster each of many clusterers put them into.

Karimi Monsefi et al., "Masked LoGoNet" (KDD 2024, arXiv:2402.06190), Sec. 3.3: clusterers of the slices of random crops
give pseudo-labels, chains of slices are masked, and the network recovers the labels of these from what it still sees.
One slice axis for fits, labels, masks and head; the authors' code has three. The temperature divides the logits
(eq. 5), which the code multiplies by it, and the loss is a mean over masked slices and clusterers, as in the code,
where eq. 4 has a sum.

B batch, C channels, Z slices across the slice axis, N clusterers, K the most clusters of one, M masked slices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from voxelseg.errors import CheckpointError
from voxelseg.nets import Network
from voxelseg.pretrain.clusters.fit import ClusterPlan, fit_clusterers
from voxelseg.pretrain.clusters.labels import Clusterers
from voxelseg.pretrain.clusters.settings import ClusterConfig
from voxelseg.pretrain.clusters.slices import SliceSource, constant_slices, slices_of
from voxelseg.pretrain.heads import PaperHead, SliceHead
from voxelseg.pretrain.masks import MaskSettings, draw_mask
from voxelseg.pretrain.methods.method import Crops, Method, Prepared, Pretext, Sample, Scores, Surroundings
from voxelseg.pretrain.methods.reconstruction import filled_from_nearest

PositiveInt = Annotated[int, Field(gt=0)]


class MaskedClustersConfig(ClusterConfig):
    """Clusterers, masks, head and loss of masked clusters."""

    mask: MaskSettings = MaskSettings()
    """What is hidden of a crop, as in {seed_share: 0.2, chain_length: 7}."""
    mask_value: Literal["zero", "token"] = "zero"
    """What hidden voxels are set to: 0, or a number for each channel that is learned."""
    head: Literal["slice", "paper"] = "slice"
    """slice: averages of each slice and two linear layers. paper: the convolutions of Algorithm 1, which cost 25 times
    LoGoNet's operations."""
    head_grid: PositiveInt = 8
    """Of the slice head: cells along each axis of a slice, whose averages are seen."""
    head_channels: PositiveInt = 512
    """Of the slice head: outputs of its first linear layer."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Divides the logits: a lower one sharpens the probabilities (tau)."""

    @model_validator(mode="after")
    def _without_idle_keys(self) -> "MaskedClustersConfig":
        fields = type(self).model_fields
        idle = [name for name in ("head_grid", "head_channels") if getattr(self, name) != fields[name].default]
        if self.head == "paper" and idle:
            raise ValueError(f"{', '.join(idle)}: the paper's head has none. Leave it out")
        return self


@dataclass(frozen=True)
class MaskedCropDrawer:
    """Makes samples: `image` (C, D, H, W) unmasked, `hidden` (D, H, W), `slices` (Z,) whose labels are asked for."""

    mask: MaskSettings
    slice_axis: int

    def __call__(self, crops: Crops, generator: np.random.Generator) -> Sample:
        """A random crop and its mask."""
        image = torch.from_numpy(np.ascontiguousarray(crops.random(generator)))
        mask = draw_mask(self.mask, crops.size, self.slice_axis, generator)
        return {"image": image, "hidden": torch.from_numpy(mask.hidden), "slices": torch.from_numpy(mask.slices)}


class MaskedClusters(Pretext):
    """A network with a head that tells the clusters of masked slices."""

    def __init__(
        self, backbone: Network, *, clusterers: Clusterers, settings: MaskedClustersConfig, surroundings: Surroundings
    ) -> None:
        super().__init__(backbone)
        self.clusterers, self.settings = clusterers, settings
        self.slice_axis = surroundings.slice_axis
        self.head = _head(backbone.feature_channels, clusterers.sizes, settings, surroundings)
        learned = settings.mask_value == "token"
        self.token = nn.Parameter(torch.zeros(surroundings.num_channels, 1, 1, 1)) if learned else None

    def forward(self, batch: Sample) -> Tensor:
        """Mean cross entropy of the labels of masked slices; 0 where a batch has none."""
        chosen = self._chosen(batch)
        losses = self._losses(self._logits(batch, chosen), self._labels(batch["image"], chosen))
        loss = _mean(losses)
        self.parts = {"cross entropy": loss.detach()}
        return loss

    @torch.no_grad()
    def unlearnt(self, batch: Sample) -> Sample:
        """The labels "wanted" (M, N) of masked slices, and those of the guesses "copied" and "filled", see `judged`."""
        chosen, prior = self._chosen(batch), self.clusterers.most_common().to(batch["image"].device)
        labels = self._labels(batch["image"], torch.ones_like(chosen)).reshape(*chosen.shape, -1)  # (B, Z, N)
        partly_hidden = slices_of(batch["hidden"][:, None], self.slice_axis).any(-1)
        return {
            "wanted": labels[chosen],
            "copied": _of_nearest_visible(labels, partly_hidden, otherwise=prior)[chosen],
            "filled": self._labels(filled_from_nearest(batch["image"], batch["hidden"]), chosen),
        }

    @torch.no_grad()
    def judged(self, batch: Sample, unlearnt: Sample) -> tuple[Tensor, Scores]:
        """How well clusters of masked slices are told, and how well without learning; all but the last two per label.

        Accuracy, which is the score, and loss of the head. Accuracies of three guesses: the label of the nearest slice
        of which nothing is hidden, be it the masked slice itself (of two the one before; without any, the class
        prior); the label that the clusterers give once each hidden voxel has the value of the nearest visible one, the
        best guess since most masked slices are partly visible; and the class prior, each clusterer's most frequent
        cluster among the slices that it was fitted on, whose frequencies alone would give the loss of the class prior.
        The labels' entropy, as a share of that of equally large clusters, and the largest cluster's share of the slices
        are means over the clusterers' fits: near 0 and 1 the labels say little.
        """
        clusterers, wanted = self.clusterers, unlearnt["wanted"]
        logits, prior = self._logits(batch, self._chosen(batch)), clusterers.most_common().to(wanted.device)
        losses = self._losses(logits, wanted)
        sums = {
            "accuracy": (logits.argmax(-1) == wanted).sum(),
            "accuracy of the nearest visible slice": (unlearnt["copied"] == wanted).sum(),
            "accuracy of the nearest visible voxels": (unlearnt["filled"] == wanted).sum(),
            "accuracy of the class prior": (prior == wanted).sum(),
            "loss": losses.sum(),
            "loss of the class prior": -clusterers.log_frequencies(wanted).sum(),
        }
        values = torch.stack([value.double() for value in sums.values()]).tolist()  # a GPU is waited for once
        found = {name: (value, float(wanted.numel())) for name, value in zip(sums, values, strict=True)}
        balance = {"label entropy": clusterers.entropies(), "largest cluster": clusterers.largest_shares()}
        return _mean(losses), {
            "score": found["accuracy"],
            **found,
            **{name: (float(value.mean()), 1.0) for name, value in balance.items()},
        }

    @torch.no_grad()
    def pictures(self, batch: Sample) -> dict[str, Tensor]:
        """A crop, what is visible of it, and which labels of its masked slices are told rightly (N, Z)."""
        first = {name: values[:1] for name, values in batch.items()}
        chosen, image = self._chosen(first), first["image"][0, 0]
        told = self._logits(first, chosen).argmax(-1) == self._labels(first["image"], chosen)  # (M, N)
        labels = torch.full((told.shape[1], chosen.shape[1]), 0.5, device=told.device)
        labels[:, chosen[0]] = told.T.float()
        return {
            "Scan": image,
            "Masked": image.masked_fill(first["hidden"][0], float(image.min())),
            "Labels by clusterer and slice: white rightly told, black wrongly, grey not asked for": labels,
        }

    def get_extra_state(self) -> dict[str, str]:
        """Which clusterers the head was trained for: only with the same ones can a training go on."""
        return {"clusterers_sha256": self.clusterers.sha256}

    def set_extra_state(self, state: Mapping[str, str]) -> None:
        """CheckpointError if the state belongs to others, such as those that another library has fitted anew."""
        if state != self.get_extra_state():
            raise CheckpointError("the clusterers are not those that the head was trained for")

    def _chosen(self, batch: Sample) -> Tensor:
        """Slices (B, Z) that count: the masked ones, without those that are constant if these are to be skipped."""
        if not self.settings.skip_constant:
            return batch["slices"]
        image = batch["image"]
        return batch["slices"] & ~constant_slices(slices_of(image, self.slice_axis), image.shape[1])

    def _logits(self, batch: Sample, chosen: Tensor) -> Tensor:
        """Logits (M, N, K), float32, of the chosen slices of the masked image."""
        image, hidden = batch["image"], batch["hidden"][:, None]
        masked = image.masked_fill(hidden, 0) if self.token is None else torch.where(hidden, self.token, image)
        logits: Tensor = self.head(self.backbone.features(masked), chosen)
        return logits

    def _labels(self, image: Tensor, chosen: Tensor) -> Tensor:
        """Labels (M, N) of the chosen slices of `image`."""
        return self.clusterers.labels(slices_of(image, self.slice_axis)[chosen])

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy (M * N,) of logits (M, N, K), which the temperature divides, and labels (M, N)."""
        with torch.autocast(logits.device.type, enabled=False):
            sharpened = logits.float() / self.settings.temperature
            return F.cross_entropy(sharpened.flatten(0, 1), labels.flatten(), reduction="none")


def _mean(losses: Tensor) -> Tensor:
    """0 where there are none."""
    return losses.sum() / max(losses.numel(), 1)


def _head(
    num_features: int, sizes: tuple[int, ...], settings: MaskedClustersConfig, surroundings: Surroundings
) -> nn.Module:
    where: Any = {"crop_size": surroundings.crop_size, "slice_axis": surroundings.slice_axis}
    if settings.head == "paper":
        return PaperHead(num_features, sizes, num_classes=settings.most_clusters, **where)
    return SliceHead(num_features, sizes, hidden=settings.head_channels, grid=settings.head_grid, **where)


def _of_nearest_visible(labels: Tensor, hidden: Tensor, *, otherwise: Tensor) -> Tensor:
    """Labels (B, Z, N) of the slice that is nearest to each and not among the `hidden` (B, Z); of two the one before.

    Where all slices of a crop are hidden, they are `otherwise` (N,).
    """
    places = torch.arange(hidden.shape[1], device=hidden.device)
    distances = (places[:, None] - places).abs() + len(places) * hidden[:, None, :]  # (B, Z, Z)
    nearest = labels.gather(1, distances.argmin(dim=2)[..., None].expand_as(labels))
    return torch.where(hidden.all(dim=1)[:, None, None], otherwise, nearest)


def check(settings: MaskedClustersConfig, surroundings: Surroundings) -> None:
    """ConfigError or DataError where the size of the crops or the number of the scans forbids the method."""
    settings.mask.check(surroundings.crop_size, surroundings.slice_axis)
    _cluster_plan(settings, surroundings).check()


def _cluster_plan(settings: MaskedClustersConfig, surroundings: Surroundings) -> ClusterPlan:
    source = SliceSource(
        settings=settings,
        scans=surroundings.scans,
        crop_size=surroundings.crop_size,
        num_channels=surroundings.num_channels,
        slice_axis=surroundings.slice_axis,
    )
    return ClusterPlan(source=source, seed=surroundings.seed)


def prepare(settings: MaskedClustersConfig, surroundings: Surroundings) -> Prepared:
    """The method, its clusterers fitted or from the cache; ConfigError or DataError where crops or scans forbid it."""
    check(settings, surroundings)
    plan = _cluster_plan(settings, surroundings)
    clusterers = fit_clusterers(plan, surroundings.cache, workers=surroundings.workers, progress=surroundings.progress)
    return Prepared(
        drawer=MaskedCropDrawer(settings.mask, surroundings.slice_axis),
        build=partial(MaskedClusters, clusterers=clusterers, settings=settings, surroundings=surroundings),
        record=_record(plan, clusterers),
    )


def _record(plan: ClusterPlan, clusterers: Clusterers) -> Mapping[str, Any]:
    return {
        "trained": "all",
        "clusterers": plan.key,
        "clusters": list(clusterers.sizes),
        "label_entropy": clusterers.entropies().tolist(),
        "largest_cluster": clusterers.largest_shares().tolist(),
    }


METHOD = Method(
    settings=MaskedClustersConfig,
    prepare=prepare,
    check=check,
    summary="clusters of masked slices, by many k-means clusterers, told from their surroundings",
    source="Karimi Monsefi et al., Masked LoGoNet, KDD 2024, arXiv:2402.06190, Sec. 3.3",
    slices=True,
)

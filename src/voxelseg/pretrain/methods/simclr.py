"""Contrastive learning of crops after SimCLR (Chen et al., ICML 2020, arXiv:2002.05709).

B batch, C channels, D H W depth, height, width in voxels, E numbers of an embedding.
Two overlapping crops of a scan, each flipped, turned and changed in its intensities, are to be more alike than crops of
different scans: each is compared with the other one of its pair, and with those of others in the batch (NT-Xent). What
is compared is an embedding: the averages of the deepest features of all encoders, standardised, then a small network,
then unit length.

Others are those of the batch, of all processes together: the more samples in a batch, the harder the task and the more
is learnt (`plan.batch_size`, at the cost of the patch). A queue of past embeddings to compare with, without the second,
slower encoder that MoCo has for it, taught networks to drift: old embeddings were told from new ones by their age, and
nothing was left when the learning rate fell.

Unlike the paper: further crops of the same scan in the batch are not compared with, since they may show the same place.

Decoders take no part: only encoders are trained, and transferred.
"""

from functools import partial
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets import Network
from voxelseg.nets.parts import encoded_channels
from voxelseg.pretrain.methods.encoding import RunningStandardisation, encoded, of_all_processes
from voxelseg.pretrain.methods.method import Method, Prepared, Pretext, Sample, Scores, Surroundings
from voxelseg.pretrain.methods.views import TwoViews, ViewSettings

PositiveInt = Annotated[int, Field(gt=0)]


class SimCLRConfig(ViewSettings):
    """How crops are changed and compared."""

    temperature: Annotated[float, Field(gt=0)] = 0.1
    """What similarities, from -1 to 1, are divided by: small values look at the most similar others."""
    embedding: PositiveInt = 128
    """Numbers of an embedding."""


class SimCLR(Pretext):
    """Encoders, and the network that makes embeddings of what they return."""

    def __init__(self, backbone: Network, *, embedding: int, temperature: float) -> None:
        super().__init__(backbone)
        width = encoded_channels(backbone)
        self.standardise = RunningStandardisation(width)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, embedding))
        self.temperature = temperature

    def forward(self, batch: Sample) -> Tensor:
        """NT-Xent, in training among the samples of all processes."""
        crops = self._embedded(batch)
        if self.training:
            crops = _Crops(*map(_pairs_of_all_processes, crops))
        loss = self._losses(self._similarities(crops)).mean()
        self.parts = {"NT-Xent": loss.detach()}
        return loss

    def _embedded(self, batch: Sample) -> "_Crops":
        """The first crops, then the second ones."""
        images = torch.cat((batch["first"], batch["second"]))
        projected: Tensor = self.projection(self.standardise(encoded(self.backbone, images)))
        voxels = images.flatten(2)
        brightness = torch.cat((voxels.mean(2), voxels.std(2)), dim=1)
        return _Crops(F.normalize(projected.float(), dim=1), brightness, batch["scan"].repeat(2))

    def _similarities(self, crops: "_Crops") -> Tensor:
        """Cosines (2 B, 2 B) of embeddings with each other; minus infinity for all of the same scan but the pair."""
        with torch.autocast(crops.embeddings.device.type, enabled=False):
            similar = crops.embeddings @ crops.embeddings.T
        left_out = crops.scans == crops.scans[:, None]
        left_out = left_out.scatter(1, _pairs(similar)[:, None], False)
        return similar.masked_fill(left_out, -torch.inf)

    def _losses(self, similar: Tensor) -> Tensor:
        return nt_xent(similar / self.temperature)

    def judged(self, batch: Sample, unlearnt: Sample) -> tuple[Tensor, Scores]:
        """Share of crops whose most similar candidate is their pair, by embedding, by brightness and by chance.

        Candidates are the pair and the crops of other scans in the batch. Brightness is mean and standard deviation:
        what tells crops apart without looking at what is in them. The score is 1 - (NT-Xent) / (NT-Xent if all were
        alike).
        """
        crops = self._embedded(batch)
        similar = self._similarities(crops)
        losses = self._losses(similar)
        alike = -torch.cdist(crops.brightness, crops.brightness)
        alike = alike.masked_fill(similar == -torch.inf, -torch.inf)
        candidates = (similar > -torch.inf).sum(1)
        number, guessing = len(similar), float(candidates.log().sum())
        return losses.mean(), {
            "score": (guessing - float(losses.sum()), guessing),
            "accuracy": (_hits(similar), number),
            "accuracy by brightness": (_hits(alike), number),
            "accuracy by chance": (float(candidates.reciprocal().sum()), number),
        }

    def pictures(self, batch: Sample) -> dict[str, Tensor]:
        """Two crops that are to be recognised as a pair."""
        return {"One view": batch["first"][0, 0], "The other": batch["second"][0, 0]}


class _Crops(NamedTuple):
    """What is compared of crops, first ones first."""

    embeddings: Tensor
    """(2 B, E), of unit length."""
    brightness: Tensor
    """Mean and spread of each channel (2 B, 2 C)."""
    scans: Tensor
    """Numbers (2 B,)."""


def nt_xent(logits: Tensor) -> Tensor:
    """Cross entropy (2 B,) of finding each crop's pair among all crops (2 B, 2 B)."""
    return F.cross_entropy(logits, _pairs(logits), reduction="none")


def _pairs(logits: Tensor) -> Tensor:
    """Place (2 B,) of the other crop of each pair."""
    return torch.arange(len(logits), device=logits.device).roll(len(logits) // 2)


def _hits(similarities: Tensor) -> float:
    """How many crops have their pair as the most similar candidate."""
    return float((similarities.argmax(1) == _pairs(similarities)).sum())


def _pairs_of_all_processes(own: Tensor) -> Tensor:
    """Rows of all processes' tensors (2 B, ...), first crops first, with gradients."""
    pairs = of_all_processes(own.view(2, -1, *own.shape[1:]))  # (P, 2, B, ...)
    return pairs.transpose(0, 1).flatten(0, 2)


def prepare(settings: SimCLRConfig, surroundings: Surroundings) -> Prepared:
    """The method; ConfigError for a single scan, or a single sample in a batch, of which there are no others."""
    for scans, purpose in ((surroundings.scans, "to learn from"), (surroundings.held_out, "held out")):
        if len(scans) == 1:
            raise ConfigError(
                f"simclr tells crops of one scan from those of others, and there is one scan {purpose}. Name more "
                "scans, hold out none (pretrain.held_out=0), or choose another method, such as mae."
            )
    if surroundings.batch_size == 1:
        raise ConfigError(
            "simclr with one sample in a batch: there is nothing to tell it from. Set plan.batch_size to 2 or more, "
            "with a smaller plan.patch_size if the memory does not suffice."
        )
    return Prepared(
        drawer=TwoViews(settings),
        build=partial(SimCLR, embedding=settings.embedding, temperature=settings.temperature),
        record={"trained": "encoder"},
    )


METHOD = Method(
    settings=SimCLRConfig,
    prepare=prepare,
    summary="tell overlapping crops of one scan from all others; trains encoders only",
    source="Chen et al., ICML 2020, arXiv:2002.05709",
    least_held_out=2,
)

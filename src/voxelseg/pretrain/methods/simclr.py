"""Contrastive learning of crops after SimCLR (Chen et al., ICML 2020, arXiv:2002.05709).

B batch, C channels, D H W depth, height, width in voxels, E numbers of an embedding, N candidates.
Two overlapping crops of a scan, each flipped, turned and changed in its intensities, are to be more alike than crops of
different scans: each is compared with the other one of its pair, and with those of others in the batch (NT-Xent). What
is compared is an embedding: the averages of the deepest features of all encoders, standardised, then a small network,
then unit length.

With batches as small as those of volumes there are few others, so the embeddings of the last samples stay in a queue
and are compared with, too (MoCo: He et al., CVPR 2020, arXiv:1911.05722). They are those that the encoder itself gave,
some steps ago; a second encoder, an average of the first, would make them more alike in age and double the memory. That
embeddings age slowly enough for this is what Wang et al. found (Cross-Batch Memory, CVPR 2020, arXiv:1912.06798). The
queue is saved with the weights, so that a training that was interrupted continues exactly. With several processes each
sees the embeddings of all.

Unlike the paper: further crops of the same scan, in the batch or the queue, are not compared with. They may show the
same place, and with few scans they would be many.

Decoders take no part: only encoders are trained, and transferred.
"""

from functools import partial
from typing import Annotated, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets import Network
from voxelseg.nets.parts import encoded_channels
from voxelseg.pretrain.methods.encoding import RunningStandardisation, encoded
from voxelseg.pretrain.methods.method import Method, Prepared, Pretext, Sample, Surroundings
from voxelseg.pretrain.methods.views import TwoViews, ViewSettings
from voxelseg.train.machines.distributed import Processes

LARGEST_QUEUE = 4096
NO_SCAN = -1
"""Number of the scan where a place of the queue is empty."""

PositiveInt = Annotated[int, Field(gt=0)]


class SimCLRConfig(ViewSettings):
    """How crops are changed and compared."""

    temperature: Annotated[float, Field(gt=0)] = 0.1
    """What similarities, from -1 to 1, are divided by: small values look at the most similar others."""
    embedding: PositiveInt = 128
    """Numbers of an embedding."""
    queue: Annotated[int, Field(ge=0)] | None = None
    """Embeddings of past samples to compare with; 0: only those of the batch. None: as many as there are scans, which
    is what an epoch gives, and 4096 at most."""


class SimCLR(Pretext):
    """Encoders, the network that makes embeddings of what they return, and the queue."""

    queue: Tensor
    """Embeddings (N, E), each of one crop, in a ring."""
    queue_brightness: Tensor
    """Mean and spread of each channel (N, 2 C) of the same crops."""
    queue_scans: Tensor
    """Numbers (N,) of their scans."""
    taken_in: Tensor
    """How many embeddings the queue has taken in so far."""

    def __init__(self, backbone: Network, *, num_channels: int, embedding: int, temperature: float, queue: int) -> None:
        super().__init__(backbone)
        width = encoded_channels(backbone)
        self.standardise = RunningStandardisation(width)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, embedding))
        self.temperature = temperature
        self.register_buffer("queue", torch.zeros(queue, embedding))
        self.register_buffer("queue_brightness", torch.zeros(queue, 2 * num_channels))
        self.register_buffer("queue_scans", torch.full((queue,), NO_SCAN))
        self.register_buffer("taken_in", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Sample) -> Tensor:
        """NT-Xent; in training the queue takes in the second crop of each pair."""
        crops = self._embedded(batch)
        if self.training:
            crops = _Crops(*map(_of_all_processes, crops))
        loss = nt_xent(self._similarities(crops) / self.temperature).mean()
        if self.training:
            self._take_in(_Crops(*(values.detach()[len(values) // 2 :] for values in crops)))
        self.parts = {"NT-Xent": loss.detach()}
        return loss

    def _embedded(self, batch: Sample) -> "_Crops":
        """The first crops, then the second ones."""
        images = torch.cat((batch["first"], batch["second"]))
        vectors = encoded(self.backbone, images)
        projected: Tensor = self.projection(self.standardise(vectors))
        if self.training:
            self.standardise.update(_of_all_processes(vectors.detach()))
        voxels = images.flatten(2)
        brightness = torch.cat((voxels.mean(2), voxels.std(2)), dim=1)
        return _Crops(F.normalize(projected.float(), dim=1), brightness, batch["scan"].repeat(2))

    def _similarities(self, crops: "_Crops") -> Tensor:
        """Cosines (2 B, 2 B + N) of embeddings with each other and with the queue.

        Minus infinity for all of the same scan but the pair, and for what is not filled. ConfigError if there is
        nothing to compare with, ever.
        """
        if len(crops.scans) == 2 and not len(self.queue):
            raise ConfigError(
                "simclr.queue=0 with one sample in a batch: there is nothing to tell it from. Leave out simclr.queue, "
                "or set plan.batch_size to 2 or more."
            )
        known = torch.cat((crops.embeddings, self.queue.clone()))  # a clone: the queue changes before backward
        scans = torch.cat((crops.scans, self.queue_scans))
        with torch.autocast(known.device.type, enabled=False):
            similar = crops.embeddings @ known.T
        left_out = (scans == crops.scans[:, None]) | (scans == NO_SCAN)
        left_out = left_out.scatter(1, _pairs(similar)[:, None], False)
        return similar.masked_fill(left_out, -torch.inf)

    @torch.no_grad()
    def _take_in(self, crops: "_Crops") -> None:
        """Put crops in place of the oldest ones; that of one that is not finite, after an overflow, is left empty."""
        size = len(self.queue)
        if not size:
            return
        embeddings, brightness, scans = (values[-size:] for values in crops)
        places = (self.taken_in + torch.arange(len(scans), device=scans.device)) % size
        sound = embeddings.isfinite().all(1)
        self.queue[places] = torch.where(sound[:, None], embeddings, 0.0)
        self.queue_brightness[places] = brightness.to(self.queue_brightness.dtype)
        self.queue_scans[places] = torch.where(sound, scans, NO_SCAN)
        self.taken_in += len(scans)

    def scores(self, batch: Sample) -> dict[str, tuple[float, float]]:
        """Share of crops whose most similar candidate is their pair, by embedding, by brightness and by chance.

        Candidates are the pair, the crops of other scans in the batch, and the queue. Brightness is mean and standard
        deviation: what tells crops apart without looking at what is in them. The score is 1 - (NT-Xent) / (NT-Xent if
        all were alike).
        """
        crops = self._embedded(batch)
        similar = self._similarities(crops)
        alike = -torch.cdist(crops.brightness, torch.cat((crops.brightness, self.queue_brightness)))
        alike = alike.masked_fill(similar == -torch.inf, -torch.inf)
        candidates = (similar > -torch.inf).sum(1)
        number, guessing = len(similar), float(candidates.log().sum())
        return {
            "score": (guessing - float(nt_xent(similar / self.temperature).sum()), guessing),
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
    """Cross entropy (2 B,) of finding each crop's pair among all candidates (2 B, N), of which the crops come first."""
    return F.cross_entropy(logits, _pairs(logits), reduction="none")


def _pairs(logits: Tensor) -> Tensor:
    """Place (2 B,) of the other crop of each pair."""
    return torch.arange(len(logits), device=logits.device).roll(len(logits) // 2)


def _hits(similarities: Tensor) -> float:
    """How many crops have their pair as the most similar candidate."""
    return float((similarities.argmax(1) == _pairs(similarities)).sum())


def _of_all_processes(own: Tensor) -> Tensor:
    """Rows of all processes' tensors (2 B, ...), first crops first, with gradients; `own` with one process."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return own
    processes = Processes(own.device, rank=dist.get_rank(), count=dist.get_world_size())
    pairs = own.view(2, -1, *own.shape[1:])
    rows = own.new_zeros(2, processes.count, *pairs.shape[1:])
    rows = torch.cat((rows[:, : processes.rank], pairs[:, None], rows[:, processes.rank + 1 :]), dim=1)
    return processes.total(rows).flatten(0, 2)


def prepare(settings: SimCLRConfig, surroundings: Surroundings) -> Prepared:
    """The method; ConfigError for a single scan, of which there are no others."""
    scans = len(surroundings.scans)
    if scans == 1:
        raise ConfigError(
            "simclr tells crops of one scan from those of others, and there is one scan to learn from. Name more "
            "scans, hold out none of two (pretrain.held_out=0), or choose another method, such as mae."
        )
    queue = min(scans, LARGEST_QUEUE) if settings.queue is None else settings.queue
    return Prepared(
        drawer=TwoViews(settings),
        build=partial(
            SimCLR,
            num_channels=surroundings.num_channels,
            embedding=settings.embedding,
            temperature=settings.temperature,
            queue=queue,
        ),
        record={"trained": "encoder", "queue": queue},
    )


METHOD = Method(
    settings=SimCLRConfig,
    prepare=prepare,
    summary="tell overlapping crops of one scan from all others; trains encoders only",
    source="Chen et al., ICML 2020, arXiv:2002.05709",
)

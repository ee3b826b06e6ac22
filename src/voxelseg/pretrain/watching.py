"""What a pre-training minimises, and its running validation on fixed crops of held-out scans."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from voxelseg.nets import Network
from voxelseg.pretrain.crops import CropSource
from voxelseg.pretrain.methods.method import Pretext, Sample
from voxelseg.train.loop.step import moved

SCORE = "score"
"""Of a method's scores the one that says which weights are best."""


class PretextLoss:
    """The loss of a pretext task, which is its own forward pass."""

    scores_name = "validation_scores"
    score_name = SCORE

    def __init__(self, pretext: Pretext) -> None:
        self.parts: Mapping[str, Tensor] = {}
        self._pretext = pretext

    def __call__(self, forward: Callable[[Any], Any], batch: Sample) -> Tensor:
        """Loss of a batch of samples."""
        loss: Tensor = forward(batch)
        self.parts = self._pretext.parts
        return loss.float()

    def network(self, model: Pretext) -> Network:
        """The network below the head."""
        return model.backbone

    def score(self, scores: Mapping[str, float]) -> float | None:
        """The method's score, if it has one and it is a number."""
        value = scores.get(SCORE, math.nan)
        return value if math.isfinite(value) else None


class WatchedCrops:
    """`count` samples of a source or a few more, in batches of its size; drawn anew each time, always the same.

    They are looked at by the same pretext task each time: what it says of a batch without learning is kept.
    """

    def __init__(self, source: CropSource | None, *, count: int) -> None:
        """Without a source, since no scan is held out, there are none."""
        self.source = source
        self._places = range(0 if source is None else -(-count // source.batch_size))
        self._unlearnt: dict[int, Sample] = {}

    @property
    def places(self) -> Sequence[int]:
        """Numbers of the batches: a task may need several samples to tell apart, so none is looked at alone."""
        return self._places

    @torch.no_grad()
    def __call__(
        self,
        pretext: Pretext,
        /,
        *,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        num_patches: int | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Mean loss and mean scores, NaN for a score of which there was nothing to count.

        `num_patches` takes so many batches, the first ones. Leaves `pretext` in evaluation mode.
        """
        pretext.eval()
        losses: list[float] = []
        sums, counts = defaultdict[str, float](float), defaultdict[str, float](float)
        for place, batch in self._batches(num_patches):
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                here: Sample = moved(batch, device)
                if place not in self._unlearnt:
                    self._unlearnt[place] = pretext.unlearnt(here)
                loss, found = pretext.judged(here, self._unlearnt[place])
            losses.append(float(loss))
            for name, (total, count) in found.items():
                sums[name] += total
                counts[name] += count
        means = {name: total / counts[name] if counts[name] else math.nan for name, total in sums.items()}
        return math.fsum(losses) / len(losses), means

    def _batches(self, number: int | None) -> Iterator[tuple[int, Sample]]:
        assert self.source is not None
        size = self.source.batch_size
        for place in self._places[:number]:
            first = size * place
            yield place, default_collate([self.source.sample(sample) for sample in range(first, first + size)])

"""Running validation: loss and Dice on a few fixed patches of the held-out cases, to watch a training by."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from voxelseg.data.labels import LabelScheme
from voxelseg.geometry import Shape
from voxelseg.nets import Network
from voxelseg.patches.sampler import Place, draw_place, read_place, sample_generator
from voxelseg.preprocess.store import StoredCase


class RunningValidation:
    """`count` places in `cases` in turn, drawn from `seed`; half of them around foreground. Read anew each time."""

    def __init__(
        self,
        cases: Sequence[StoredCase],
        *,
        count: int,
        patch_size: Shape,
        labels: LabelScheme,
        loss: Callable[[Tensor, Tensor], Tensor],
        seed: int,
    ) -> None:
        """`loss` lies on the device of the networks."""
        self.labels = labels
        self.loss = loss
        self.patch_size = patch_size
        self.places: list[Place] = []
        for number in range(count if cases else 0):
            rounds, index = divmod(number, len(cases))
            foreground = (rounds + index) % 2 == 0
            generator = sample_generator(seed, number)
            self.places.append(draw_place([cases[index]], patch_size, foreground=foreground, generator=generator))

    @torch.no_grad()
    def __call__(
        self,
        network: Network,
        *,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        num_patches: int | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Mean loss, and Dice of each class pooled over all patches; NaN where a class is neither there nor found.

        `num_patches` takes the first ones only, which are still spread over the cases. Leaves `network` in evaluation
        mode.
        """
        network.eval()
        switched = network.deep_supervision
        network.deep_supervision = False
        losses: list[float] = []
        counts = torch.zeros(3, len(self.labels.classes), dtype=torch.int64, device=device)
        try:
            for patch in self._patches(num_patches):
                image, target = (one.to(device) for one in patch)
                with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                    logits = network(image)
                losses.append(float(self.loss(logits, target)))
                counts += _overlap(logits, target, self.labels)
        finally:
            network.deep_supervision = switched
        both, predicted, present = counts.cpu()
        scores = 2 * both / (predicted + present)
        return float(np.mean(losses)), dict(zip(self.labels.names, scores.tolist(), strict=True))

    def _patches(self, count: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for place in self.places[:count]:
            image, target = read_place(place, self.patch_size)
            yield torch.from_numpy(image)[None], torch.from_numpy(target)[None]


def _overlap(logits: Tensor, target: Tensor, labels: LabelScheme) -> Tensor:
    """(3, classes): voxels in both, in the prediction, in the reference; ignored ones left out. Where `logits` lie."""
    known = target >= 0
    if labels.has_regions:
        predicted = (logits > 0).movedim(1, -1)
        present = torch.from_numpy(labels.region_table).to(logits.device)[target.clamp(min=0).long()]
    else:
        classes = torch.arange(1, len(labels.classes) + 1, device=logits.device)
        predicted = logits.argmax(dim=1)[..., None] == classes
        present = target[..., None] == classes
    predicted, present = predicted & known[..., None], present & known[..., None]
    over = tuple(range(predicted.ndim - 1))
    return torch.stack([(predicted & present).sum(over), predicted.sum(over), present.sum(over)])

"""Find the places and turns of eight cubes (Zhuang et al., MICCAI 2019, arXiv:1910.02241; Rubik's Cube+: Zhu et al.,
Medical Image Analysis 2020).

B batch, C channels, d h w depth, height, width of a cube in voxels, F numbers that the encoder makes of a cube, P
permutations.
The crop is cut into 2 x 2 x 2 cubes with a gap between them, so that edges do not give away what belongs together. They
are put in the order of one of P permutations, and each is turned by 180 degrees about a horizontal axis, a vertical
one, both or none. The encoder sees one cube at a time; a small head sees all eight vectors, standardised, and says
which permutation it was and how each cube was turned. The loss is a cross entropy for the one plus a binary cross
entropy for the others.
Rubik's Cube+ masks some cubes besides, half of their blocks here, and asks which: one more binary cross entropy.

Decoders take no part: only the encoder is trained, and transferred.
"""

from dataclasses import dataclass
from functools import partial
from math import log
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.geometry import Shape
from voxelseg.nets import Network
from voxelseg.nets.parts import encoded_channels
from voxelseg.pretrain.masks import draw_blocks
from voxelseg.pretrain.methods.blocks import as_shape
from voxelseg.pretrain.methods.encoding import RunningStandardisation, encoded
from voxelseg.pretrain.methods.method import Crops, Method, Prepared, Pretext, Sample, Scores, Surroundings
from voxelseg.pretrain.methods.permutations import MOST_ORDERS, Order, far_orders

CUBES = 8
HORIZONTAL_TURN, VERTICAL_TURN = (0, 1), (1, 2)
"""Axes, of D, H, W, that a half-turn mirrors: about the left-right axis W, and about the upright axis D."""
USUAL_GAP = 10
"""Voxels."""
LEAST_CUBE = 4
"""Voxels along each axis of a cube; with fewer there is nothing to tell a turn by."""
HIDDEN = 512
"""Width of the head."""
MASKED_BLOCK, MASKED_SHARE = (4, 4, 4), 0.5
"""Of a masked cube: voxels of its blocks, and how many of these are set to 0."""

NotNegative = Annotated[int, Field(ge=0)]


class RubikClsConfig(BaseModel):
    """How cubes are taken, put in order and turned; the defaults are the papers'."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    gap: NotNegative | tuple[NotNegative, NotNegative, NotNegative] | None = None
    """Voxels between neighbouring cubes, or along D, H, W. None: 10, or a quarter of the crop where that is less."""
    permutations: Annotated[int, Field(ge=2, le=MOST_ORDERS)] = 100
    """Permutations to tell apart: up to 8 of them differ in all places, up to 56 in seven or more, all others in six or
    more."""
    turn: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance of each of the two half-turns of a cube; 0: none turns, and nobody asks."""
    mask: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a cube is masked, as in Rubik's Cube+; 0: none is, and nobody asks."""


@dataclass(frozen=True)
class TurnedCubes:
    """Draws "cubes" (8, C, d, h, w), the number of their "permutation", their "turns" (8, 2) and which are "masked".

    Place i holds the cube that the permutation names i-th; cubes are counted along W first. The first turn is about a
    horizontal axis, the second about a vertical one. Turns and masks are zeros and ones.
    """

    orders: tuple[Order, ...]
    gap: Shape
    turn: float
    mask: float

    def __call__(self, crops: Crops, generator: np.random.Generator) -> Sample:
        image = torch.from_numpy(crops.random(generator))
        number = int(generator.integers(len(self.orders)))
        turns = generator.random((CUBES, 2)) < self.turn
        masked = generator.random(CUBES) < self.mask
        cubes = cut_cubes(image, self.gap)
        placed = torch.stack(
            [half_turned(cubes[cube], turned) for cube, turned in zip(self.orders[number], turns, strict=True)]
        )
        for place in np.flatnonzero(masked):
            d, h, w = placed.shape[2:]
            hidden = draw_blocks((d, h, w), MASKED_BLOCK, MASKED_SHARE, generator)
            placed[place, :, torch.from_numpy(hidden)] = 0
        return {
            "cubes": placed,
            "permutation": torch.tensor(number),
            "turns": torch.from_numpy(turns.astype(np.float32)),
            "masked": torch.from_numpy(masked.astype(np.float32)),
        }


def cube_size(crop_size: Shape, gap: Shape) -> Shape:
    """Voxels of a cube along each axis, two of which and the gap fit into the crop."""
    d, h, w = ((size - between) // 2 for size, between in zip(crop_size, gap, strict=True))
    return (d, h, w)


def cut_cubes(image: Tensor, gap: Shape) -> list[Tensor]:
    """The eight corners (C, d, h, w) of an image (C, D, H, W), counted along W first."""
    _, *size = image.shape
    d, h, w = cube_size((size[0], size[1], size[2]), gap)
    return [
        image[:, depth, height, width]
        for depth in (slice(d), slice(-d, None))
        for height in (slice(h), slice(-h, None))
        for width in (slice(w), slice(-w, None))
    ]


def half_turned(cube: Tensor, turns: npt.NDArray[np.bool_]) -> Tensor:
    """The cube (C, d, h, w) after its turn about a horizontal axis, its turn about a vertical one, both or none."""
    for turned, axes in zip(turns, (HORIZONTAL_TURN, VERTICAL_TURN), strict=True):
        if turned:
            cube = cube.flip([1 + axis for axis in axes])
    return cube


class RubikCls(Pretext):
    """An encoder, and the head that sees what it makes of all eight cubes."""

    def __init__(self, backbone: Network, *, settings: RubikClsConfig) -> None:
        super().__init__(backbone)
        width = encoded_channels(backbone)
        chances = {"turns": settings.turn, "masked": settings.mask}
        self.chances = {name: chance for name, chance in chances.items() if chance}
        """Of what is answered by yes or no for each cube."""
        self.standardise = RunningStandardisation(width)
        self.hidden = nn.Linear(CUBES * width, HIDDEN)
        self.permutation = nn.Linear(HIDDEN, settings.permutations)
        self.answers = nn.ModuleDict(
            {name: nn.Linear(HIDDEN, 2 * CUBES if name == "turns" else CUBES) for name in self.chances}
        )

    def forward(self, batch: Sample) -> Tensor:
        """Cross entropy of the permutation, plus that of the turns and of the masks, their means, if there are any."""
        losses = self._losses(*self._logits(batch), batch)
        self.parts = {name: loss.mean().detach() for name, loss in losses.items()}
        return _total(losses)

    def _logits(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the permutation (B, P), and of turns (B, 8, 2) and masks (B, 8)."""
        cubes = batch["cubes"]
        vectors = self.standardise(encoded(self.backbone, cubes.flatten(0, 1)))  # (B*8, F)
        hidden = F.gelu(self.hidden(vectors.view(len(cubes), -1)))
        answers = {name: layer(hidden).float().view(batch[name].shape) for name, layer in self.answers.items()}
        return self.permutation(hidden).float(), answers

    def _losses(self, permutation: Tensor, answers: dict[str, Tensor], batch: Sample) -> dict[str, Tensor]:
        """Parts of the loss (B,) of each sample."""
        losses = {"permutation": F.cross_entropy(permutation, batch["permutation"], reduction="none")}
        for name, logits in answers.items():
            each = F.binary_cross_entropy_with_logits(logits, batch[name], reduction="none")
            losses[name] = each.flatten(1).mean(1)
        return losses

    def judged(self, batch: Sample, unlearnt: Sample) -> tuple[Tensor, Scores]:
        """Accuracies, those of guessing, and the score: 1 - (loss) / (loss of guessing by the chances of the draw)."""
        permutation, answers = self._logits(batch)
        number, choices = float(len(permutation)), permutation.shape[1]
        losses = self._losses(permutation, answers, batch)
        guessing = number * (log(choices) + sum(_entropy(chance) for chance in self.chances.values()))
        scores = {
            "score": (guessing - float(sum(loss.sum() for loss in losses.values())), guessing),
            "permutation accuracy": (float((permutation.argmax(1) == batch["permutation"]).sum()), number),
            "permutation accuracy by chance": (number / choices, number),
        }
        for name, chance in self.chances.items():
            right = (answers[name] > 0) == (batch[name] > 0)
            scores[f"{name} accuracy"] = (float(right.float().flatten(1).mean(1).sum()), number)
            scores[f"{name} accuracy by chance"] = (number * max(chance, 1 - chance), number)
        return _total(losses), scores


def _total(losses: dict[str, Tensor]) -> Tensor:
    """Mean over the samples of the sum of parts (B,) of the loss."""
    return torch.stack(list(losses.values())).sum(0).mean()


def _entropy(chance: float) -> float:
    """Cross entropy of guessing what has this chance."""
    return -sum(p * log(p) for p in (chance, 1 - chance) if p > 0)


def prepare(settings: RubikClsConfig, surroundings: Surroundings) -> Prepared:
    """The method; ConfigError for a gap that leaves too little of the cubes. The seed chooses the permutations."""
    size = surroundings.crop_size
    gap = _usual_gap(size) if settings.gap is None else as_shape(settings.gap)
    if min(cube_size(size, gap)) < LEAST_CUBE:
        raise ConfigError(
            f"rubik_cls.gap={list(gap)}: of a crop of {' x '.join(map(str, size))} voxels it leaves cubes of "
            f"{' x '.join(str(max(0, side)) for side in cube_size(size, gap))}, and {LEAST_CUBE} are needed along each "
            "axis. Choose a smaller gap, a number for each of D, H, W, or a larger crop (plan.patch_size)."
        )
    orders = far_orders(settings.permutations, np.random.default_rng(surroundings.seed))
    return Prepared(
        drawer=TurnedCubes(tuple(tuple(map(int, order)) for order in orders), gap, settings.turn, settings.mask),
        build=partial(RubikCls, settings=settings),
        record={"trained": "encoder", "gap": list(gap)},
    )


def _usual_gap(size: Shape) -> Shape:
    d, h, w = (min(USUAL_GAP, voxels // 4) for voxels in size)
    return (d, h, w)


METHOD = Method(
    settings=RubikClsConfig,
    prepare=prepare,
    summary="find the places and turns of eight cubes; trains the encoder only",
    source="Zhuang et al., MICCAI 2019, arXiv:1910.02241; Zhu et al., Medical Image Analysis 2020",
)

"""What a pretext task is: samples that are drawn in background processes, and a module whose forward pass is the loss.

B batch, C channels, D H W depth, height, width of a crop in voxels, F feature channels of the network.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from torch import Tensor, nn

from voxelseg.geometry import Shape
from voxelseg.nets import Network
from voxelseg.preprocess.store import StoredCase

Sample = dict[str, Tensor]
"""One training sample, or a batch of them with one more axis in front: tensors by name."""
Scores = dict[str, tuple[float, float]]
"""Of a batch, by name: a sum and what divides it, so that the mean over batches can be taken."""


class Crops(Protocol):
    """The scan that a sample is taken from, read crop by crop."""

    @property
    def size(self) -> Shape:
        """Size of a crop along D, H, W."""
        ...

    @property
    def scan_number(self) -> int:
        """Stands for the scan: 0 or more, the same for all its crops in every process, and others' are different."""
        ...

    def random(self, generator: np.random.Generator) -> npt.NDArray[np.float32]:
        """A crop (C, D, H, W) at a random place; what lies outside the scan is 0."""
        ...

    def overlapping(self, generator: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Two crops (C, D, H, W) at random places that overlap along every axis."""
        ...


class SampleDrawer(Protocol):
    """Makes a sample: picklable, and without a random state of its own."""

    def __call__(self, crops: Crops, generator: np.random.Generator) -> Sample:
        """The sample that the state of `generator` decides."""
        ...


class Pretext(nn.Module, ABC):
    """A network without its heads, and what the pretext task puts on top of it."""

    def __init__(self, backbone: Network) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts: dict[str, Tensor] = {}
        """Parts of the loss of the last batch, as scalars."""

    @abstractmethod
    def forward(self, batch: Sample) -> Tensor:
        """Loss of a batch, a float32 scalar; sets `parts`."""

    def unlearnt(self, batch: Sample) -> Sample:
        """What `judged` needs that follows from the batch alone, as what is reached without learning; mostly nothing.

        It is kept for batches that are looked at again and again, so it should be small.
        """
        return {}

    @abstractmethod
    def judged(self, batch: Sample, unlearnt: Sample) -> tuple[Tensor, Scores]:
        """Loss, as `forward` gives it, and scores of a batch, from one forward pass of the network.

        Scores tell whether something was learnt, and what would be reached without learning. The mean over all batches
        is logged. Of the names, `score` counts for which weights are best: more is better, and 0 is reached without
        learning, unless it is the same as another. "accuracy by chance" and "error of the mean" are baselines of
        "accuracy" and "error", and are drawn with them; less is better of an error and a loss.
        """

    def scores(self, batch: Sample) -> Scores:
        """The scores of a batch that is looked at once."""
        return self.judged(batch, self.unlearnt(batch))[1]

    def pictures(self, batch: Sample) -> dict[str, Tensor]:
        """What the report shows of the first sample of a batch, by title, in order; nothing if there is nothing to see.

        (D, H, W) are intensities of a crop, all of one size, as "Scan", "Masked" and "Restored": they share one range
        of grey, and slices of them are shown side by side. (rows, columns) are values from 0 to 1, such as which
        pseudo-labels were recovered, shown as they are, each as a picture of its own.
        """
        return {}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a method may look at before the first step."""

    scans: Sequence[StoredCase]
    """Those that are learnt from."""
    held_out: Sequence[StoredCase]
    """Those that the training is watched by."""
    batch_size: int
    """Samples of a batch, of all processes together."""
    crop_size: Shape
    num_channels: int
    slice_axis: int
    """Axis of a crop, 0 to 2, across which slices follow one another."""
    seed: int
    cache: Path
    """Folder for what takes long to make; what lies there is named by all that it depends on."""
    workers: int
    """Background processes that may be used."""
    progress: Callable[[str, float], None] | None = None
    """Called with what is being done and the share that is done."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A method, ready to start."""

    drawer: SampleDrawer
    build: Callable[[Network], Pretext]
    """Puts the task on top of a network; fresh weights come from torch's global generator."""
    record: Mapping[str, Any]
    """What the file of the result says of the method besides its settings. Its "trained" is what the method trains of
    the network: "all" up to its `features`, or the "encoder", which `encode` consists of (`nets.parts.Part`)."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A pretext task that can be chosen."""

    settings: type[BaseModel]
    """Of its section in the configuration, which has the method's name with underscores."""
    prepare: Callable[[Any, Surroundings], Prepared]
    """Called with the settings before the first step, in every process of a training; DataError or ConfigError if the
    scans do not allow the method."""
    summary: str
    """One line for people who choose."""
    source: str
    """Publication that it follows."""
    check: Callable[[Any, Surroundings], object] | None = None
    """Refuses, without reading a scan, what `prepare` would refuse so; None: `prepare` itself reads no scan."""
    slices: bool = False
    """Whether it looks at slices, so that `pretrain.slice_axis` has an effect."""
    least_held_out: int = 1
    """Scans that it needs to watch a training by, if any are held out."""

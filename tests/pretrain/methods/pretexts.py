"""What the tests of the pretext tasks share: crops without scans, small networks, a few steps of training."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from voxelseg.geometry import Shape
from voxelseg.nets import Network, create_model
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.backbone import freeze_all_but
from voxelseg.pretrain.methods import METHODS
from voxelseg.pretrain.methods.method import Prepared, Pretext, Sample, Surroundings

SIZE: Shape = (8, 12, 8)
"""Of a crop that `small_network` takes."""


class SmoothCrops:
    """Crops of a smooth random volume, different each time; the two that overlap are shifted by two voxels."""

    def __init__(self, size: Shape = SIZE, num_channels: int = 2, *, scan_number: int = 0) -> None:
        self.size = size
        self.num_channels = num_channels
        self.scan_number = scan_number

    def random(self, generator: np.random.Generator) -> np.ndarray:
        return self._volume(generator)[:, 2:, 2:, 2:]

    def overlapping(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        volume = self._volume(generator)
        return volume[:, 2:, 2:, 2:].copy(), volume[:, :-2, :-2, :-2].copy()

    def _volume(self, generator: np.random.Generator) -> np.ndarray:
        axes = np.indices([side + 2 for side in self.size])
        waves = generator.uniform(0.2, 0.8, (self.num_channels, 3)), generator.uniform(0, 6, self.num_channels)
        return np.stack(
            [np.sin(np.tensordot(wave, axes, 1) + phase) for wave, phase in zip(*waves, strict=True)]
        ).astype(np.float32)


def surroundings(
    size: Shape = SIZE,
    *,
    num_channels: int = 2,
    num_scans: int = 8,
    num_held_out: int = 2,
    batch_size: int = 2,
    seed: int = 0,
) -> Surroundings:
    """What a method sees of scans that it does not read."""
    scans = [StoredCase(f"scan {number}", Path("nowhere")) for number in range(num_scans + num_held_out)]
    return Surroundings(
        scans=scans[:num_scans],
        held_out=scans[num_scans:],
        batch_size=batch_size,
        crop_size=size,
        num_channels=num_channels,
        slice_axis=0,
        seed=seed,
        cache=Path("nowhere"),
        workers=0,
    )


def prepared(method: str, size: Shape = SIZE, **settings: object) -> Prepared:
    """A method with these settings."""
    entry = METHODS[method]
    return entry.prepare(entry.settings(**settings), surroundings(size))


def small_network(num_channels: int = 2) -> Network:
    """A U-Net of two levels, with the same weights each time."""
    torch.manual_seed(0)
    return create_model("unet", in_channels=num_channels, num_classes=3, width=4, strides=(1, 2))


def small_pretext(method: str, size: Shape = SIZE, **settings: object) -> Pretext:
    """A method on a small network, of which only what it trains can be trained."""
    chosen, network = prepared(method, size, **settings), small_network()
    freeze_all_but(network, chosen.record["trained"])
    return chosen.build(network)


def drawn(method: Prepared, number: int, size: Shape = SIZE, *, seed: int = 0) -> Sample:
    """A batch of so many samples, each of a scan of its own."""
    samples = [
        method.drawer(SmoothCrops(size, scan_number=1000 * seed + index), np.random.default_rng((seed, index)))
        for index in range(number)
    ]
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def trained(pretext: Pretext, batches: Callable[[int], Sample], steps: int, *, rate: float = 1e-2) -> list[float]:
    """Losses of so many steps of Adam."""
    pretext.train()
    parameters = [parameter for parameter in pretext.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = pretext(batches(step))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def count_passes(network: Network) -> Counter[str]:
    """Counts from here on how often `features` and `encode` of the network are called."""
    passes: Counter[str] = Counter()

    def count(name: str) -> None:
        original = getattr(network, name)

        def counted(image: torch.Tensor) -> object:
            passes.update([name])
            return original(image)

        setattr(network, name, counted)

    count("features")
    count("encode")
    return passes


def means(scores: dict[str, tuple[float, float]]) -> dict[str, float]:
    """What is logged of the scores of a single batch."""
    return {name: total / count for name, (total, count) in scores.items()}

"""DiNTS (He et al., CVPR 2021, arXiv:2103.15954) from MONAI: a network out of a searched grid of cells.

B batch, D H W depth, height, width in voxels, K classes.
The grid has blocks, one after the other, and levels of resolution; a path leads from a level of one block to the same
or a neighbouring level of the next, and a cell on it applies one of five operations. Paths have MONAI's order: for each
level that they end at, from the level above it, from the same level, from the level below, as far as these exist. With
three levels: 0 to 0, 1 to 0, 0 to 1, 1 to 1, 2 to 1, 1 to 2, 2 to 2.

`architecture` says which operation is on which path. The one that the authors searched is published as a file of
weights, not in the paper, and no file is fetched here: with the codes `arch_code_a` and `arch_code_c` of such a file it
is `where(arch_code_a == 1, arch_code_c, -1)`. Not set, every path has all five operations, added up: the whole space,
six blocks and three levels of it. That is what LoGoNet's Table 1 prints, for "DiNTS Search" and "DiNTS Instance" alike.
"""

import io
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from voxelseg.errors import ConfigError
from voxelseg.nets.baselines.monai_network import MonaiNetwork, OnCpu
from voxelseg.nets.network import NetworkEntry, PrintedCost, check_counts, check_switches

NUM_OPERATIONS = 5


@dataclass(frozen=True, kw_only=True)
class DiNTSConfig:
    """Options of a DiNTS network; the defaults are the network that LoGoNet's Table 1 counts."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 32
    """Channels at full resolution; they double with each level."""
    blocks: int = 6
    """Blocks of cells from input to output."""
    levels: int = 3
    """Levels of resolution in the grid."""
    halved: bool = True
    """Whether the finest level of the grid has half the resolution of the input."""
    architecture: tuple[tuple[int, ...], ...] | None = None
    """For each block, one number for each of the 3 * levels - 2 paths: -1 for no path, 0 for a skip connection, 1 for a
    convolution of 3 x 3 x 3, 2 to 4 for a plane of 3 x 3 along D H, D W or H W and a line of 3 along the third axis."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "blocks", "levels")
        check_switches(self, "halved")
        if self.levels < 2 or self.width < 2:
            raise ConfigError(f"levels = {self.levels}, width = {self.width}: expected at least 2 of each.")
        if self.architecture is not None:
            blocks: Any = self.architecture
            if not isinstance(blocks, list | tuple) or not all(isinstance(block, list | tuple) for block in blocks):
                raise ConfigError(f"architecture = {self.architecture!r}: expected a list of numbers for each block.")
            object.__setattr__(self, "architecture", tuple(tuple(block) for block in self.architecture))
            self._check_architecture(self.architecture)

    def _check_architecture(self, architecture: tuple[tuple[int, ...], ...]) -> None:
        ends = path_ends(self.levels)
        shapes = {len(block) for block in architecture}
        if len(architecture) != self.blocks or shapes != {len(ends)}:
            raise ConfigError(
                f"architecture of {len(architecture)} blocks with {sorted(shapes)} numbers: expected {self.blocks} "
                f"(blocks) with {len(ends)} (3 * levels - 2)."
            )
        if any(code not in range(-1, NUM_OPERATIONS) for block in architecture for code in block):
            raise ConfigError(f"architecture: expected numbers from -1 to {NUM_OPERATIONS - 1}.")
        arrived = set(range(self.levels))  # the stem serves every level
        for number, block in enumerate(architecture):
            used = [end for end, code in zip(ends, block, strict=True) if code >= 0]
            left = {start for start, _ in used}
            if not used or not left <= arrived or (number > 0 and left != arrived):
                raise ConfigError(
                    f"architecture, block {number}: its paths begin at levels {sorted(left)}, those of the block "
                    f"before end at {sorted(arrived)}. Every level reached must be left again, and no other."
                )
            arrived = {end for _, end in used}


def path_ends(levels: int) -> list[tuple[int, int]]:
    """(Level where it begins, level where it ends) of every path of a block."""
    return [(start, end) for end in range(levels) for start in (end - 1, end, end + 1) if start in range(levels)]


class DiNTS(MonaiNetwork):
    """MONAI's DiNTS."""

    def __init__(self, config: DiNTSConfig) -> None:
        divisor = 2 ** (config.levels - 1 + config.halved)
        super().__init__(config, lambda nets: _build(nets, config), divisor=(divisor,) * 3)

    def encoders(self) -> Iterable[nn.Module]:
        """The stems that take the input to each level, and the grid."""
        net: Any = self.network
        return net.stem_down, net.dints_space


def _build(nets: Any, config: DiNTSConfig) -> nn.Module:
    codes = None if config.architecture is None else np.array(config.architecture)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(), OnCpu(torch.ones):
        # MONAI prints what sizes it recommends, and warns where no architecture is given; both are meant here.
        warnings.filterwarnings("ignore", "arch_code not provided", UserWarning)
        space = nets.TopologyInstance(
            arch_code=None if codes is None else [(codes >= 0).astype(int), np.maximum(codes, 0)],
            channel_mul=config.width / 32,
            num_blocks=config.blocks,
            num_depths=config.levels,
            use_downsample=config.halved,
        )
    space.arch_code_a = space.arch_code_a.numpy()  # it decides what runs, which an exporter cannot ask of a tensor
    network: nn.Module = nets.DiNTS(
        dints_space=space,
        in_channels=config.in_channels,
        num_classes=config.num_classes,
        use_downsample=config.halved,
        node_a=_nodes(config, space.arch_code_a),
    )
    return network


def _nodes(config: DiNTSConfig, paths: np.ndarray) -> np.ndarray:
    """Which levels (blocks + 1, levels) are in use before the first block and after each."""
    nodes = np.zeros((config.blocks + 1, config.levels), dtype=bool)
    for path, (start, end) in enumerate(path_ends(config.levels)):
        nodes[0, start] |= paths[0, path] > 0
        nodes[1:, end] |= paths[:, path] > 0
    return nodes


ENTRIES = {
    "dints": NetworkEntry(
        network=DiNTS,
        config=DiNTSConfig,
        source="He et al., CVPR 2021, arXiv:2103.15954; MONAI's DiNTS",
        summary="grid of cells from architecture search, here the whole search space: a baseline of LoGoNet",
        printed=(PrintedCost(where="Table 1 of LoGoNet", parameters_m=74.1, gflops=743.88, convention="thop"),),
    )
}

"""E2ENet (Wu et al., NeurIPS 2024, arXiv:2312.04727): sparse fusion of features across scales, and planar kernels.

B batch, C channels, D H W depth, height, width in voxels, K classes; level i = 0 at full resolution, stage j = 0 the
encoder. x[j, i] is the feature map of stage j at level i: with L levels there are L - 1 stages of fusion, the j-th of
which has L - j levels (Fig. 3, Eq. 1). Every convolution is planar, and before it the channels are moved along D in
chunks (restricted depth shift, Sec. 3.3). Only a share of the kernels that fuse is active (dynamic sparse feature
fusion, Sec. 3.2): see `kernel_masks`, and `voxelseg.train.sparse.topology` for moving the active ones.

The paper, whose sections and tables are those of its first arXiv version, and the authors' code
(github.com/boqian333/E2ENet-Medical, commit 7b18d91) differ in

- the shift: three chunks by -1, 0, 1 voxels in the paper, five by `RELEASED_SHIFT` in the code, whatever it is asked
  for. The paper's is the default, since its ablation finds larger shifts worse (Table 5); weights of the authors need
  `shift=RELEASED_SHIFT`;
- the nodes of the last diagonal, i + j = L - 1: two convolutions in the code, one in the paper, as in all others
  (`last_convs=1`). The code's is the default, since no printed count is met without;
- the transposed convolutions: sparse in the code, dense in the paper (`sparse_up=False`). The code's is the default,
  for the same reason;
- the order in which a node sees its own level, the one below and the one above: this in the code, the default, since
  the authors' weights have it; the one above first in the paper (`concatenation="above-own-below"`). Since chunks of
  the concatenated channels are moved, it makes a difference;
- the heads: four in the code, the default; three in the paper's Algorithm 1 (`num_heads=3`);
- strides: (2, 2, 2) throughout is the default, with which the paper's tables were counted, but for Table 6 and the
  text: these have (1, 2, 2) first. In training they are those of the plan, as in the code;
- kernels of 3 x 3 x 3 (Table 5): those counted there are planar in the nodes before the last diagonal
  (`kernel=3, inner_kernel=(1, 3, 3)`), which the code fixes. `kernel=3` alone is the network that the text describes;
- kernels of 3 x 1 x 3 and 3 x 3 x 1 (Table 4): the shift along H or W is printed, but switched off in the code. Here
  `shift_axis` has it;
- the sparsity: layers of 48 channels keep 20 % of their kernels in the code, whatever is asked for, which shows in one
  printed row (AMOS, sparsity 0.7). Here all layers have the same; the default is that of the authors' README.

Where both agree on something surprising, it is kept: the image is shifted as well (`shift_input=False` for not), so
that a single channel moves by one voxel as a whole; strided convolutions read every second plane; heads have no bias.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.kernel_masks import FusionNode, add_masks, num_active
from voxelseg.nets.multiscale import MultiscaleNetwork, See
from voxelseg.nets.network import (
    Levels,
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_shares,
    check_switches,
    per_axis,
    per_level,
)
from voxelseg.ops.block_upsample import block_upsample
from voxelseg.ops.depth_shift import depth_shift
from voxelseg.ops.dispatch import fast_on_cpu
from voxelseg.ops.norm import instance_norm_leaky_relu
from voxelseg.ops.planar import planar_conv

NEGATIVE_SLOPE = 0.01
ENCODER_CONVS = 2  # per level
RELEASED_SHIFT = (-2, -1, 0, 1, 2)
"""Shift of the authors' code."""


@dataclass(frozen=True, kw_only=True)
class E2ENetConfig:
    """Options of an E2ENet; the defaults are the published network."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 48
    """Channels at full resolution; they double with each level."""
    max_width: int = 320
    """Upper bound of the channels."""
    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), *((2, 2, 2),) * 5)
    """Stride of each level per axis; one number stands for all axes, the first level has 1."""
    kernel: tuple[int, ...] | int = (1, 3, 3)
    """Kernel of the convolutions per axis, odd; one number stands for all."""
    inner_kernel: tuple[int, ...] | int | None = None
    """Kernel of the fusion nodes before the last diagonal. None: as all others."""
    shift: tuple[int, ...] = (-1, 0, 1)
    """Voxels by which each chunk of channels is moved before each convolution; none: no shift."""
    shift_axis: Literal["D", "H", "W"] = "D"
    """Axis along which they are moved."""
    shift_input: bool = True
    """Whether the channels of the image are moved, too."""
    last_convs: int = 2
    """Convolutions of the fusion nodes of the last diagonal; all others have one."""
    concatenation: Literal["own-below-above", "above-own-below"] = "own-below-above"
    """Order in which a node sees its own level, the one below (upsampled) and the one above (downsampled)."""
    sparsity: float = 0.8
    """Share of the kernels that are inactive in each sparse layer; 0 for a dense network."""
    sparse_up: bool = True
    """Whether the transposed convolutions are sparse, not only the fusion nodes."""
    num_heads: int | None = None
    """Outputs with deep supervision. None: one for each node of the last diagonal but the lowest, four as published."""
    deep_supervision: bool = False
    """Whether there are heads below full resolution."""
    checkpointing: bool = False
    """Recompute levels of the encoder and fusion nodes in the backward pass of training: less memory, more time, the
    same numbers."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "max_width", "last_convs")
        check_switches(self, "shift_input", "sparse_up", "deep_supervision", "checkpointing")
        object.__setattr__(self, "strides", per_level("strides", self.strides))
        if len(self.strides) < 2 or self.strides[0] != (1, 1, 1):
            raise ConfigError(f"strides = {self.strides}: expected at least two levels, the first with stride 1.")
        object.__setattr__(self, "kernel", _odd("kernel", self.kernel))
        inner = self.kernel if self.inner_kernel is None else _odd("inner_kernel", self.inner_kernel)
        object.__setattr__(self, "inner_kernel", inner)
        object.__setattr__(self, "shift", _offsets(self.shift))
        check_choice(self, "shift_axis", "D", "H", "W")
        check_choice(self, "concatenation", "own-below-above", "above-own-below")
        check_shares(self, "sparsity")
        self._settle_heads()

    def _settle_heads(self) -> None:
        nodes = len(self.strides) - 1
        if self.num_heads is None:
            object.__setattr__(self, "num_heads", max(nodes - 1, 1))
        check_counts(self, "num_heads")
        if self.num_heads is not None and self.num_heads > nodes:
            raise ConfigError(f"num_heads = {self.num_heads}: with {nodes + 1} levels there can be {nodes}.")

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """Levels (two at least) and strides are those of the plan; the kernels are planar as they are.

        Where the plan never halves D, the image is not shifted unless the user wants it: with few planes a single
        channel would lose much, and with one plane everything.
        """
        planned: dict[str, Any] = {"strides": strides if len(strides) > 1 else strides * 2}
        if all(stride[0] == 1 for stride in strides):
            planned["shift_input"] = options.get("shift_input", False)
        return planned


def _odd(name: str, value: object) -> tuple[int, ...]:
    sizes = per_axis(name, value)
    if any(size % 2 == 0 for size in sizes):
        raise ConfigError(f"{name} = {value!r}: expected odd sizes.")
    return sizes


def _offsets(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or any(not isinstance(n, int) or isinstance(n, bool) for n in value):
        raise ConfigError(f"shift = {value!r}: expected a list of whole numbers, one per chunk of channels.")
    return tuple(value)


class ShiftConvNormReLU(nn.Module):
    """Shift of chunks of the channels, convolution, instance norm, leaky ReLU (Fig. 5)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: tuple[int, ...],
        config: E2ENetConfig,
        stride: tuple[int, ...] = (1, 1, 1),
        shift: bool = True,
    ) -> None:
        super().__init__()
        padding = tuple(size // 2 for size in kernel)
        self.offsets = config.shift if shift else ()
        self.axis = "DHW".index(config.shift_axis)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding)  # type: ignore[arg-type]
        self.norm = nn.InstanceNorm3d(out_channels, affine=True)

    def forward(self, *parts: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride) from tensors that have C_in channels together."""
        x = depth_shift(parts, self.offsets, axis=self.axis)
        x = planar_conv(x, self.conv.weight, self.conv.bias, stride=self.conv.stride)
        return instance_norm_leaky_relu(x, self.norm.weight, self.norm.bias, eps=self.norm.eps, slope=NEGATIVE_SLOPE)


class E2ENet(MultiscaleNetwork):
    """Encoder, stages of fusion between neighbouring levels, and pointwise heads."""

    def __init__(self, config: E2ENetConfig) -> None:
        assert config.num_heads is not None, "E2ENetConfig settles the number of heads"
        strides, levels = config.strides, range(len(config.strides))
        reach = [tuple(prod(stride[axis] for stride in strides[: level + 1]) for axis in range(3)) for level in levels]
        num_heads = config.num_heads if config.deep_supervision else 1
        widths = [min(config.width * 2**level, config.max_width) for level in levels]
        super().__init__(
            reach[:num_heads], divisor=reach[-1], in_channels=config.in_channels, feature_channels=widths[0]
        )
        self.config = config
        self.checkpointing = config.checkpointing
        self.widths = widths
        self.encoder = nn.ModuleList(self._encoder_level(level) for level in levels)
        stages = [levels[:-stage] for stage in levels[1:]]
        self.up = nn.ModuleList(nn.ModuleList(self._up(level) for level in stage) for stage in stages)
        self.fusion = nn.ModuleList(
            nn.ModuleList(self._node(level, last=level == stage[-1]) for level in stage) for stage in stages
        )
        self.heads = nn.ModuleList(
            nn.Conv3d(self.widths[level], config.num_classes, 1, bias=False) for level in range(num_heads)
        )
        self.apply(_kaiming)
        add_masks(self, self._fusing_layers(), config.sparsity)

    def _encoder_level(self, level: int) -> nn.Sequential:
        config, width = self.config, self.widths[level]
        above = config.in_channels if level == 0 else self.widths[level - 1]
        kernel = per_axis("kernel", config.kernel)
        first = ShiftConvNormReLU(
            above,
            width,
            kernel=kernel,
            config=config,
            stride=config.strides[level],
            shift=level > 0 or config.shift_input,
        )
        others = (ShiftConvNormReLU(width, width, kernel=kernel, config=config) for _ in range(ENCODER_CONVS - 1))
        return nn.Sequential(first, *others)

    def _up(self, level: int) -> nn.ConvTranspose3d:
        stride: Any = self.config.strides[level + 1]
        return nn.ConvTranspose3d(self.widths[level + 1], self.widths[level], stride, stride, bias=False)

    def _node(self, level: int, *, last: bool) -> nn.Sequential:
        config, width = self.config, self.widths[level]
        seen = 2 * width + (self.widths[level - 1] if level > 0 else 0)
        kernel = per_axis("kernel", config.kernel if last else config.inner_kernel)
        first = ShiftConvNormReLU(seen, width, kernel=kernel, config=config)
        num_others = config.last_convs - 1 if last else 0
        return nn.Sequential(
            first, *(ShiftConvNormReLU(width, width, kernel=kernel, config=config) for _ in range(num_others))
        )

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoder, stage 0."""
        return self.encoder.parameters()

    def sparse_layers(self) -> list[str]:
        """Names of the layers of which only some kernels are active; none with a sparsity of 0."""
        return self._fusing_layers() if self.config.sparsity else []

    def _fusing_layers(self) -> list[str]:
        """Names of the layers that have masks."""
        convs = [name for name, layer in self.fusion.named_modules(prefix="fusion") if isinstance(layer, nn.Conv3d)]
        ups = [name for name, layer in self.up.named_modules(prefix="up") if isinstance(layer, nn.ConvTranspose3d)]
        return [*convs, *ups] if self.config.sparse_up else convs

    def fusion_nodes(self) -> list[FusionNode]:
        """The nodes x[j, i] with their first convolutions, which see their own level and its neighbours."""
        places = [(stage, level) for stage in range(1, len(self.widths)) for level in range(len(self.widths) - stage)]
        return [
            FusionNode(name=f"x[{j},{i}]", layer=f"fusion.{j - 1}.{i}.0.conv", sources=self._sources(i))
            for j, i in places
        ]

    def _sources(self, level: int) -> dict[str, range]:
        """Input channels of a fusion node: its own level passes forward, the one below up, the one above down."""
        sources = [("forward", self.widths[level]), ("up", self.widths[level])]
        if level > 0:
            place = 2 if self.config.concatenation == "own-below-above" else 0
            sources.insert(place, ("down", self.widths[level - 1]))
        ends = accumulate(width for _, width in sources)
        return {direction: range(end - width, end) for (direction, width), end in zip(sources, ends, strict=True)}

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Outputs of the encoder's levels, full resolution first."""
        self.check_input(x)
        if fast_on_cpu(x, self.heads[0].weight):  # type: ignore[arg-type]
            # Every operation then keeps this layout. A clone, since one channel is contiguous in either as it is.
            x = x.clone(memory_format=torch.channels_last_3d)
        outputs: list[Tensor] = []
        for level in self.encoder:
            x = self._call(level, x)  # (B, C_i, D_i, H_i, W_i)
            outputs.append(x)
        return outputs

    def _decode(self, x: Tensor, num_levels: int, see: See) -> list[Tensor]:
        """See `MultiscaleNetwork`; of the last diagonal's nodes."""
        features = self._encode(x)
        seen: list[Tensor] = []
        for ups, nodes in zip(self.up, self.fusion, strict=True):
            features = self._stage(features, ups, nodes)  # type: ignore[arg-type]
            lowest = len(features) - 1  # on the last diagonal
            if lowest < num_levels:
                seen.append(see(lowest, features[lowest]))
        return seen[::-1]

    def _stage(self, features: Sequence[Tensor], ups: nn.ModuleList, nodes: nn.ModuleList) -> list[Tensor]:
        """Feature maps of the next stage, which has one level less."""
        fused: list[Tensor] = []
        for level, (up, node) in enumerate(zip(ups, nodes, strict=True)):
            seen = features[level], features[level + 1], *features[max(level - 1, 0) : level]
            fused.append(self._call(partial(self._fuse, level, up, node), *seen))
        return fused

    def _fuse(self, level: int, up: nn.Module, node: nn.Module, own: Tensor, below: Tensor, *above: Tensor) -> Tensor:
        """Output of a node from the feature maps of its level, of the one below and, but for level 0, the one above."""
        pooled = [F.max_pool3d(x, self.config.strides[level]) for x in above]
        parts = [own, block_upsample(below, up.weight)]  # type: ignore[arg-type]
        parts = [*parts, *pooled] if self.config.concatenation == "own-below-above" else [*pooled, *parts]
        first, *others = node.children()
        y: Tensor = first(*parts)
        for block in others:
            y = block(y)
        return y


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def paper_cost(config: E2ENetConfig, size: Sequence[int]) -> tuple[int, int]:
    """Parameters and operations (FLOPs) for one patch of `size` voxels, as the paper prints them (Eq. 4 and 5).

    Active kernels only; two operations per multiply-accumulate and one more per output value of the fusion nodes. All
    heads are counted, and a transposed convolution as if each of its output voxels took all taps: as many times more
    than it really takes as a block has voxels.
    """
    parameters = operations = 0
    for layer in _layers(config, size):
        parameters += layer.parameters
        operations += 2 * layer.kernels * layer.taps * layer.voxels
        operations += layer.channels * layer.voxels if layer.fuses else 0
    return parameters, operations


def sparse_cost(config: E2ENetConfig, size: Sequence[int]) -> tuple[int, int]:
    """Parameters and multiply-accumulates for one patch of `size` voxels, if inactive kernels cost nothing.

    The parameters of all heads are counted, the operations of those that `config` asks for.
    """
    parameters = macs = 0
    for layer in _layers(config, size):
        parameters += layer.parameters
        if layer.head == 0 or layer.head is None or config.deep_supervision:
            macs += layer.kernels * layer.taps * layer.voxels // layer.block
    return parameters, macs


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """What a convolution costs."""

    parameters: int
    """Of its active kernels, its bias and its norm."""
    kernels: int
    """Active ones."""
    taps: int
    channels: int
    """Of its output."""
    voxels: int
    """Of its output."""
    block: int
    """Voxels that one becomes in a transposed convolution; 1 for all others."""
    fuses: bool
    head: int | None


def _layers(config: E2ENetConfig, size: Sequence[int]) -> Iterator[_Layer]:
    """The convolutions of the network with all its heads; it is built without memory."""
    with torch.device("meta"):
        network = E2ENet(replace(config, deep_supervision=True))
    sparse = set(network.sparse_layers())
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            continue
        part, *place = name.split(".")
        level = int(place[1 if part in ("fusion", "up") else 0])
        reach = [prod(stride[axis] for stride in config.strides[: level + 1]) for axis in range(3)]
        pairs, taps = layer.in_channels * layer.out_channels, prod(layer.kernel_size)
        kernels = num_active(pairs, config.sparsity) if name in sparse else pairs
        bias_and_norm = 0 if layer.bias is None else 3 * layer.out_channels
        yield _Layer(
            parameters=kernels * taps + bias_and_norm,
            kernels=kernels,
            taps=taps,
            channels=layer.out_channels,
            voxels=prod(n // step for n, step in zip(size, reach, strict=True)),
            block=taps if isinstance(layer, nn.ConvTranspose3d) else 1,
            fuses=part == "fusion",
            head=level if part == "heads" else None,
        )


SIZES: dict[str, dict[str, Any]] = {"e2enet": {}}
"""Options of each named size."""

_RULE_OF_48 = (
    "the authors' layers of 48 channels kept 20 % of their kernels in this row; 969.32 G and 11.2293 M with that rule"
)
_TEXT_STRIDES = ((1, 1, 1), (1, 2, 2), *((2, 2, 2),) * 4)
_AMOS = {"in_channels": 1, "num_classes": 16, "size": (128, 128, 128)}
_BTCV = {"in_channels": 1, "num_classes": 14, "size": (96, 96, 96)}
_BRATS = {"in_channels": 4, "num_classes": 4, "size": (128, 128, 128)}


def _printed(
    where: str, parameters_m: float, gflops: float, patch: dict[str, Any], note: str = "", **options: Any
) -> PrintedCost:
    return PrintedCost(
        where=where,
        parameters_m=parameters_m,
        gflops=gflops,
        convention="e2enet",
        options=options,
        note=note,
        **patch,
    )


PRINTED = (
    _printed("Table 1 of E2ENet", 11.23, 969.32, _AMOS, sparsity=0.7, note=_RULE_OF_48),
    _printed("Table 1 of E2ENet", 9.44, 778.74, _AMOS, sparsity=0.8),
    _printed("Table 1 of E2ENet", 7.64, 492.29, _AMOS, sparsity=0.9),
    _printed("Table 2 of E2ENet", 11.25, 449.00, _BTCV, sparsity=0.7),
    _printed("Table 3 of E2ENet", 11.24, 1067.06, _BRATS, sparsity=0.7),
    _printed("Table 3 of E2ENet", 9.44, 780.97, _BRATS, sparsity=0.8),
    _printed("Table 3 of E2ENet", 7.63, 494.52, _BRATS, sparsity=0.9),
    _printed("Table 4 of E2ENet", 23.89, 3071.78, _BRATS, sparsity=0.0),
    _printed("Table 5 of E2ENet", 23.90, 3069.55, _AMOS, sparsity=0.0),
    _printed("Table 5 of E2ENet", 52.54, 4511.57, _AMOS, sparsity=0.0, kernel=3, inner_kernel=(1, 3, 3)),
    _printed("Table 5 of E2ENet", 27.97, 1778.55, _AMOS, sparsity=0.7, kernel=3, inner_kernel=(1, 3, 3)),
    _printed("Table 6 of E2ENet", 9.43, 1041.42, _AMOS, sparsity=0.8, strides=_TEXT_STRIDES),
    _printed("Table 6 of E2ENet", 7.63, 680.25, _AMOS, sparsity=0.9, strides=_TEXT_STRIDES),
    _printed("Table 9 of E2ENet", 10.37, 1119.17, _AMOS, sparsity=0.8, width=58),
)
"""Costs in the paper, counted by `paper_cost`. The headings of its Table 6 are swapped, and in Table 5 the ticks of the
two rows with kernels of 3 x 3 x 3."""

ENTRIES = {
    name: NetworkEntry(
        network=E2ENet,
        config=E2ENetConfig,
        options=options,
        source="Wu et al., NeurIPS 2024, arXiv:2312.04727; github.com/boqian333/E2ENet-Medical at 7b18d91",
        summary="planar kernels and shifted channels; features fused across scales by sparse kernels",
        printed=PRINTED,
    )
    for name, options in SIZES.items()
}

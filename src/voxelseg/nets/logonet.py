"""LoGoNet: a ULKANet for the whole volume and one for each of its parts, added up (Karimi Monsefi et al., KDD 2024).

B batch, C channels, D H W depth, height, width in voxels, K classes, F features (as many as classes).
The global network sees the volume, each of the eight local ones a part of it (Fig. 1a, Sec. 3.2). These are the first
two stages of a ULKANet each, with weights of their own. Their outputs, put together again, are added to the global one;
a convolution, batch norm, GELU and a pointwise convolution follow. `voxelseg.nets.ulkanet` says where paper and code
differ, above all in the residuals of a block.

Unlike the code: the local networks can share their weights (`share_local`). Where a part lies in a random crop, flipped
and rotated, means nothing, and each unshared network learns from an eighth of the data. The axes are cut into any
number of parts, and the sum may have more channels than there are classes (`feature_channels`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import lcm, prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from voxelseg.errors import ConfigError
from voxelseg.nets.network import (
    Levels,
    Network,
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_switches,
    per_axis,
)
from voxelseg.nets.ulkanet import (
    COST_NOTE,
    DRAFT_TABLE,
    LARGE,
    SOURCE,
    ULKANetConfig,
    ULKAUNet,
    channels_last_on_cpu,
    next_multiple,
)
from voxelseg.ops.dispatch import plain_forms
from voxelseg.ops.pointwise import pointwise_head

EXECUTIONS = ("auto", "loop", "batch")


@dataclass(frozen=True, kw_only=True)
class LoGoNetConfig(ULKANetConfig):
    """Options of a LoGoNet: those of the global ULKANet, and of the local ones; the defaults are the paper's."""

    cubes_per_axis: tuple[int, ...] | int = 2
    """Parts into which the local networks' input is cut along each axis; one number stands for all."""
    local_stages: int = 2
    """Stages of the local networks: the first ones of `dims`, `depths` and `mlp_ratios`."""
    share_local: bool = False
    """Whether one local network sees all parts; otherwise each has weights of its own, as published."""
    local_execution: Literal["auto", "loop", "batch"] = "auto"
    """Parts one after the other, or all as one batch. Networks with weights of their own then become one with grouped
    convolutions, and give the same. A shared one gives the same in evaluation mode; its batch norms see one part at a
    time in a loop, and all in a batch. "auto": shared weights as a batch, others in a loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "local_stages")
        check_switches(self, "share_local")
        object.__setattr__(self, "cubes_per_axis", per_axis("cubes_per_axis", self.cubes_per_axis))
        if self.local_stages > len(self.dims):
            raise ConfigError(f"local_stages = {self.local_stages}: expected at most one per dims ({len(self.dims)}).")
        check_choice(self, "local_execution", *EXECUTIONS)

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """As for ULKANet; an axis is cut only where the parts fit the local networks without more padding."""
        adapted = super().plan_options(options, strides, kernels)
        cubes = per_axis("cubes_per_axis", options.get("cubes_per_axis", cls.cubes_per_axis))
        whole = _total(adapted["strides"])
        local = _total(adapted["strides"][: options.get("local_stages", cls.local_stages) + 1])
        adapted["cubes_per_axis"] = tuple(
            number if all_steps % (number * steps) == 0 else 1
            for number, all_steps, steps in zip(cubes, whole, local, strict=True)
        )
        return adapted


def _total(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Downsampling per axis by all these steps together."""
    return tuple(prod(axis) for axis in zip(*strides, strict=True))


class LoGoNet(Network):
    """Global and local ULKANets, their sum, and a small head (Fig. 1a)."""

    def __init__(self, config: LoGoNetConfig) -> None:
        assert not isinstance(config.strides, int | str)
        assert not isinstance(config.kernels, int)
        assert not isinstance(config.cubes_per_axis, int)
        whole, local = _total(config.strides), _total(config.strides[: config.local_stages + 1])
        self.cubes_per_axis = config.cubes_per_axis
        super().__init__(
            [(1, 1, 1)],
            divisor=tuple(lcm(a, n * b) for a, b, n in zip(whole, local, config.cubes_per_axis, strict=True)),
            in_channels=config.in_channels,
            feature_channels=config.features,
        )
        self.config = config
        width = config.dims[0] // 2
        self.global_net = ULKAUNet(config, stages=len(config.dims), width=width)
        self.local_nets = nn.ModuleList(  # of the parts in row-major order, W fastest
            ULKAUNet(config, stages=config.local_stages, width=width)
            for _ in range(1 if config.share_local else prod(config.cubes_per_axis))
        )
        kernel = config.kernels[0]
        self.conv = nn.Conv3d(config.features, config.features, kernel, padding=[size // 2 for size in kernel])  # type: ignore[arg-type]
        self.norm: nn.Module = nn.BatchNorm3d(config.features)
        self.classifier = nn.Conv3d(config.features, config.num_classes, 1)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the stems and stages of the global and the local networks."""
        nets: list[Any] = [self.global_net, *self.local_nets]
        return chain.from_iterable(net.encoder_parameters() for net in nets)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, D, H, W)."""
        return self.classify(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Sum of the outputs of the global and the local networks (B, F, D, H, W)."""
        x = self._prepared(x)
        y: Tensor = self.global_net(x) + self._local(x)
        return y

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W)."""
        y = F.gelu(self.norm(self.conv(features)))
        return pointwise_head(y, self.classifier.weight, self.classifier.bias)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Output of the last stage of the global network, then of the local one of each part, W fastest."""
        x = self._prepared(x)
        parts = split_cubes(x, self.cubes_per_axis)
        if self._parts_are_a_batch:
            (net,) = self._nets_of(parts[:1])
            local = net.encode(torch.cat(parts))[-1].chunk(len(parts))
        else:
            local = tuple(net.encode(part)[-1] for net, part in zip(self._nets_of(parts), parts, strict=True))
        return [self.global_net.encode(x)[-1], *local]

    def _prepared(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return channels_last_on_cpu(x, self.classifier.weight)

    @property
    def _parts_are_a_batch(self) -> bool:
        return self.config.share_local and self.config.local_execution != "loop"

    def _nets_of(self, parts: Sequence[Tensor]) -> Sequence[ULKAUNet]:
        """The local network of each part."""
        nets: list[Any] = list(self.local_nets)
        return nets * len(parts) if self.config.share_local else nets

    def _local(self, x: Tensor) -> Tensor:
        """What the local networks make of their parts, put together again."""
        parts = split_cubes(x, self.cubes_per_axis)
        if self._parts_are_a_batch:
            outputs = self.local_nets[0](torch.cat(parts)).chunk(len(parts))
        elif self.config.local_execution == "batch" and _can_run_as_one(self.local_nets):
            outputs = run_as_one(self.local_nets, parts)
        else:
            outputs = [net(part) for net, part in zip(self._nets_of(parts), parts, strict=True)]
        return join_cubes(outputs, self.cubes_per_axis)

    def fuse(self) -> None:
        """Batch norms folded into convolutions, and scales into the layers before them."""
        nets: list[Any] = [self.global_net, *self.local_nets]
        for net in nets:
            net.fuse()
        if isinstance(self.norm, nn.BatchNorm3d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()

    def _fitting_size(self, x: Tensor) -> tuple[int, ...]:
        return super()._fitting_size(x) if self.training and x.shape[0] == 1 else next_multiple(x, self.divisor)


def _can_run_as_one(nets: nn.ModuleList) -> bool:
    """Whether each layer trains, or does not, in all networks alike, and neither a compiler nor other processes watch.

    Batch norms that exchange their statistics with other processes can do so only one network after the other.
    """
    modes = [[layer.training for layer in net.modules()] for net in nets]
    exchanging = any(isinstance(layer, _BatchNorm) and type(layer) is not nn.BatchNorm3d for layer in nets.modules())
    return all(mode == modes[0] for mode in modes) and not exchanging and not torch.compiler.is_compiling()


def split_cubes(x: Tensor, per_axis: Sequence[int]) -> list[Tensor]:
    """`x` (B, C, D, H, W) cut into equal parts, `per_axis` of them along each axis, in row-major order."""
    parts = [x]
    for axis, number in enumerate(per_axis, start=2):
        parts = [piece for part in parts for piece in part.chunk(number, dim=axis)]
    return parts


def join_cubes(parts: Sequence[Tensor], per_axis: Sequence[int]) -> Tensor:
    """Inverse of `split_cubes`."""
    for axis, number in reversed(list(enumerate(per_axis, start=2))):
        parts = [torch.cat(tuple(parts[first : first + number]), dim=axis) for first in range(0, len(parts), number)]
    return parts[0]


def run_as_one(nets: nn.ModuleList, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Output of each network for its own input: networks of one form run as one, over stacked weights.

    Gradients and running statistics are those of a loop. Everything runs in its plain form. On one CPU thread it takes
    longer than the loop, grouped convolutions being what they are there.
    """

    def run(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = functional_call(nets[0], tensors, (x,))
        return y

    states = [dict(chain(net.named_parameters(), net.named_buffers())) for net in nets]
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    with plain_forms():
        outputs: Tensor = vmap(run)(stacked, torch.stack(tuple(inputs)))
    with torch.no_grad():
        for name, _ in nets[0].named_buffers():  # running statistics, which training has changed in the stack
            for state, value in zip(states, stacked[name], strict=True):
                state[name].copy_(value)
    return outputs.unbind()


_TABLE = "Table 1 of Masked LoGoNet"

ENTRIES = {
    "logonet": NetworkEntry(
        network=LoGoNet,
        config=LoGoNetConfig,
        source=SOURCE,
        summary="LoGoNet: a global ULKANet and eight local ones, added up",
        printed=(PrintedCost(where=_TABLE, parameters_m=67.5, gflops=246.96, convention="thop", note=COST_NOTE),),
    ),
    "logonet_l": NetworkEntry(
        network=LoGoNet,
        config=LoGoNetConfig,
        options=LARGE,
        source=SOURCE,
        summary="LoGoNet large: wider, 24 blocks in the third stage of the global network",
        printed=(
            PrintedCost(where=DRAFT_TABLE, parameters_m=172.54, gflops=487.65, convention="thop", note=COST_NOTE),
        ),
    ),
}

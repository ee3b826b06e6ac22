"""Keeps what is masked in the image masked in all that a network's encoder computes, at every resolution.

A convolution would spread visible voxels into masked ones, layer after layer, until nothing of the mask is left (SparK:
Tian et al., ICLR 2023, arXiv:2301.03580, Sec. 3.1). SparK computes with sparse layers instead: what is masked is zero
after each convolution, and norms count visible voxels only. Here the output of each block of the encoder is set to zero
where all voxels below it are masked. So nothing spreads beyond a block, skip connections are zero there for the
decoder, and every network runs as it is, in its fast forms, too. Norms do see zeros, unlike in SparK: their statistics
are those of the whole crop. A transformer's tokens see those that are masked, as zeros of the image, until its stage
returns a volume.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets import Network
from voxelseg.nets.baselines.monai_transformers import SwinUNETR
from voxelseg.nets.logonet import LoGoNet, split_cubes

View = Callable[[Tensor], Tensor]
"""What a part of a network sees of the mask (B, 1, D, H, W) of its input."""
_VOXELS_FIRST = {"blocks", "downsample"}
"""Parts of MONAI's Swin transformer whose outputs have channels last; what they return is masked by the layer around
them."""


class EncoderMask:
    """The mask that the encoder of one network obeys from now on; nothing is masked until `show` is called."""

    def __init__(self, network: Network) -> None:
        """ConfigError for a network whose encoder cannot be masked."""
        self._visible: Tensor | None = None
        self._at: dict[tuple[View, torch.Size], Tensor] = {}
        """Which voxels are visible at each resolution, for each view."""
        self._last: ref[Tensor] | None = None
        """What was masked last."""
        blocks = list(_encoder_blocks(network))
        if not blocks:
            raise ConfigError(
                f"mae: the encoder of {type(network).__name__} has no blocks whose outputs could be masked. Choose "
                "another network, or another method, such as simmim."
            )
        for block, view in blocks:
            block.register_forward_hook(partial(self._masked, view=view))

    def show(self, visible: Tensor | None) -> None:
        """From now on hide all but `visible`, zeros and ones (B, 1, D, H, W) for voxels of the input; None: nothing.

        The mask must stay until the backward pass where a network computes its activations again in that.
        """
        self._visible = visible
        self._at = {}

    def _masked(self, block: nn.Module, inputs: object, output: object, *, view: View) -> object:
        """What takes the place of a block's output (B, C, d, h, w): the same, and 0 where nothing is visible."""
        if self._visible is None or not isinstance(output, Tensor) or output.ndim != 5:
            return output
        if self._last is not None and output is self._last():
            return output  # of a block that ends with another
        size = output.shape[2:]
        if (view, size) not in self._at:
            self._at[view, size] = F.adaptive_max_pool3d(view(self._visible), size)
        masked = output * self._at[view, size].to(output.dtype)
        self._last = ref(masked)
        return masked


def _encoder_blocks(network: Network) -> Iterator[tuple[nn.Module, View]]:
    """The blocks of the encoder, and what each sees of the mask.

    PyTorch's own layers are not among them: fast forms use their weights without calling them.
    """
    encoding = {id(parameter) for parameter in network.encoder_parameters()}
    for part, view in _parts(network):
        for name, module in part.named_modules():
            own = {id(parameter) for parameter in module.parameters()}
            of_torch = type(module).__module__.startswith("torch.")
            inside = isinstance(network, SwinUNETR) and not _VOXELS_FIRST.isdisjoint(name.split("."))
            if own and own <= encoding and not of_torch and not inside:
                yield module, view


def _parts(network: Network) -> list[tuple[nn.Module, View]]:
    """Parts of a network that see different parts of its input; most are one."""
    if not isinstance(network, LoGoNet):
        return [(network, _whole)]
    config, cubes = network.config, network.cubes_per_axis
    needed = "batch" if config.share_local else "loop"
    if config.local_execution not in ("auto", needed):
        raise ConfigError(
            f"model.local_execution={config.local_execution}: mae cannot tell the local networks' masks apart then. "
            f"Use auto or {needed}."
        )
    if config.share_local:
        local: list[tuple[nn.Module, View]] = [(network.local_nets[0], partial(_all_cubes, cubes=cubes))]
    else:
        local = [(net, partial(_one_cube, cubes=cubes, number=number)) for number, net in enumerate(network.local_nets)]
    return [(network.global_net, _whole), *local]


def _whole(visible: Tensor) -> Tensor:
    return visible


def _one_cube(visible: Tensor, *, cubes: Sequence[int], number: int) -> Tensor:
    return split_cubes(visible, cubes)[number]


def _all_cubes(visible: Tensor, *, cubes: Sequence[int]) -> Tensor:
    """One after the other along the batch."""
    return torch.cat(split_cubes(visible, cubes))

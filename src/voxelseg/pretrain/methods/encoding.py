"""One vector for each crop: what the methods that train encoders only look at.

B batch, C channels, D H W depth, height, width in voxels, F numbers of the vector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from voxelseg.nets import Network


def encoded(network: Network, image: Tensor) -> Tensor:
    """Averages (B, F), float32, of the deepest features of the encoder, or of all encoders, one after the other.

    There are `nets.parts.encoded_channels` of them. The image (B, C, D, H, W) may have any size: zeros are appended up
    to one that the network takes.
    """
    features = network.encode(_fitting(network, image))
    return torch.cat([deepest.float().flatten(2).mean(2) for deepest in features], dim=1)


def _fitting(network: Network, image: Tensor) -> Tensor:
    """`image` with zeros appended up to a size that the network takes, with two voxels or more at its deepest level."""
    sizes = network.image_size
    if sizes is None:
        multiples = [-(-size // step) for size, step in zip(image.shape[2:], network.divisor, strict=True)]
        if max(multiples) == 1:
            multiples[-1] = 2  # a single voxel at the lowest resolution has no variance to normalise by
        sizes = tuple(number * step for number, step in zip(multiples, network.divisor, strict=True))
    lack = [max(0, fits - size) for fits, size in zip(sizes, image.shape[2:], strict=True)]
    return F.pad(image, [pad for axis_lack in reversed(lack) for pad in (0, axis_lack)]) if any(lack) else image

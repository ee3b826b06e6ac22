"""One vector for each crop: what the methods that train encoders only look at.

B batch, C channels, D H W depth, height, width in voxels, F numbers of the vector.
"""

import torch
from torch import Tensor

from voxelseg.nets import Network


def encoded(network: Network, image: Tensor) -> Tensor:
    """Averages (B, F), float32, of the deepest features of the encoder, or of all encoders, one after the other.

    There are `nets.parts.encoded_channels` of them. The image (B, C, D, H, W) may have any size: zeros are appended up
    to one that the network takes.
    """
    features = network.encode(network.padded(image))
    return torch.cat([deepest.float().flatten(2).mean(2) for deepest in features], dim=1)

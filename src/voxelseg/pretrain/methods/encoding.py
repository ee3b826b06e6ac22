"""One vector for each crop: what the methods that train encoders only look at.

B batch, C channels, D H W depth, height, width in voxels, F numbers of the vector, P processes.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from voxelseg.nets import Network
from voxelseg.train.machines.distributed import Processes

EPSILON = 1e-5
"""Added to variances, as in batch norm: what hardly varies at all stays small."""
SHARE_OF_A_BATCH = 0.1
"""Of one batch in running statistics; the first ones count alike."""


def encoded(network: Network, image: Tensor) -> Tensor:
    """Averages (B, F), float32, of the deepest features of the encoder, or of all encoders, one after the other.

    There are `nets.parts.encoded_channels` of them. The image (B, C, D, H, W) may have any size: zeros are appended up
    to one that the network takes.
    """
    features = network.encode(network.padded(image))
    return torch.cat([deepest.float().flatten(2).mean(2) for deepest in features], dim=1)


def of_all_processes(own: Tensor) -> Tensor:
    """What all processes have (P, ...), with gradients; of a single one (1, ...)."""
    if not dist.is_initialized():
        return own[None]
    processes = Processes(own.device, rank=dist.get_rank(), count=dist.get_world_size())
    everyone = own.new_zeros(processes.count, *own.shape)
    return processes.total(torch.cat((everyone[: processes.rank], own[None], everyone[processes.rank + 1 :])))


class RunningStandardisation(nn.Module):
    """Brings each number of a vector to mean 0 and a variance of nearly 1 over the crops of the last batches.

    Where the encoder ends with an instance norm, averages of features hardly differ between crops: their vectors have
    cosines of 0.999, whatever is seen. Batch norm would tell them apart only if the batch is large, and the two crops
    of a single pair would always become opposite; these statistics are those of earlier batches, and part of the state.
    """

    mean: Tensor
    """(F,)."""
    variance: Tensor
    """(F,)."""
    updates: Tensor
    """How many there have been."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    # A compiled backward pass would take the statistics as the update leaves them.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F) by the statistics as they are; in training these then take in the vectors of all processes."""
        standardised = (vectors - self.mean) / (self.variance + EPSILON).sqrt()
        if self.training:
            self._update(of_all_processes(vectors.detach()).flatten(0, 1))
        return standardised

    @torch.no_grad()
    def _update(self, vectors: Tensor) -> None:
        """Take in `vectors` (B, F), but for those that are not finite, after an overflow.

        Sums are float64: float32 ones would differ with the order that processes give the rows.
        """
        vectors = vectors.double()
        sound = vectors.isfinite().all(1, keepdim=True)
        number = sound.sum().clamp(min=1)
        share = (1 / (self.updates + 1)).clamp(min=SHARE_OF_A_BATCH) * sound.any()
        self.mean.lerp_((torch.where(sound, vectors, 0).sum(0) / number).float(), share)
        squares = torch.where(sound, vectors - self.mean, 0).square()
        self.variance.lerp_((squares.sum(0) / number).float(), share)
        self.updates += sound.any()

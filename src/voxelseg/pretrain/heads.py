"""Heads that tell the clusters of masked slices: Masked LoGoNet's own, and a light one.

B batch, F feature channels, Z slices across the slice axis, X Y size of a slice in voxels, N clusterers, k_j clusters
of clusterer j, K the most that one can have, M slices whose clusters are asked for. Both heads take features
(B, F, D, H, W) at full resolution and return logits (M, N, K) in float32, -inf for clusters that a clusterer lacks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxelseg.geometry import Shape


def in_slice_axes(slice_axis: int) -> tuple[int, int]:
    """The two other axes of D, H, W: X and Y of a slice."""
    first, second = (axis for axis in range(3) if axis != slice_axis)
    return first, second


class SliceHead(nn.Module):
    """Averages over the cells of a grid on each slice, then two linear layers.

    Only the slices that are asked for pass the linear layers, and no clusterer has logits for clusters that it lacks.
    """

    def __init__(
        self,
        num_features: int,
        sizes: Sequence[int],
        *,
        crop_size: Shape,
        slice_axis: int,
        hidden: int = 512,
        grid: int = 8,
    ) -> None:
        """A slice has a grid of `grid` x `grid` cells, or one cell for each voxel along axes that have fewer."""
        super().__init__()
        self.slice_axis, self.num_clusterers, self.num_classes = slice_axis, len(sizes), max(sizes)
        cells = num_features
        for axis in in_slice_axes(slice_axis):
            means = _cell_means(crop_size[axis], grid)
            self.register_buffer(f"means_{'dhw'[axis]}", means, persistent=False)
            cells *= means.shape[1]
        self.hidden = nn.Sequential(nn.Linear(cells, hidden), nn.GELU())
        self.last = nn.Linear(hidden, sum(sizes))
        columns = [torch.arange(size) + number * self.num_classes for number, size in enumerate(sizes)]
        self.register_buffer("columns", torch.cat(columns), persistent=False)

    def forward(self, features: Tensor, chosen: Tensor) -> Tensor:
        """Logits (M, N, K) of the slices that `chosen` (B, Z) has True for, in their order."""
        for axis in reversed(in_slice_axes(self.slice_axis)):
            letter = "dhw"[axis]
            # A matrix product: the averages of adaptive pooling, whose gradient is not reproducible on a GPU.
            equation = f"bfdhw,{letter}x->bf{'dhw'.replace(letter, 'x')}"
            features = torch.einsum(equation, features, self.get_buffer(f"means_{letter}"))
        slices = features.movedim(2 + self.slice_axis, 1).flatten(2)  # (B, Z, F * cells)
        device = "cpu" if features.is_meta else features.device.type  # without data, as where costs are counted
        with torch.autocast(device, enabled=False):  # costs little, and half precision makes logits equal
            logits: Tensor = self.last(self.hidden(slices[chosen].float()))  # (M, sum of k_j)
        impossible = logits.new_full((len(logits), self.num_clusterers * self.num_classes), -torch.inf)
        spread = impossible.index_copy(1, self.get_buffer("columns"), logits)
        return spread.reshape(-1, self.num_clusterers, self.num_classes)


def _cell_means(size: int, grid: int) -> Tensor:
    """Matrix (size, cells) that averages over `grid` cells, as adaptive pooling does, or over as many as there are."""
    cells = min(grid, size)
    means = torch.zeros(size, cells)
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        means[first:last, cell] = 1 / (last - first)
    return means


class PaperHead(nn.Module):
    """Algorithm 1 of Masked LoGoNet (KDD 2024): convolutions along clusterers, clusters, rows and slices in turn.

    Made for one crop size, and costly: at 96 x 96 x 96 with 80 clusterers of up to 500 clusters 25 times LoGoNet's
    multiply-accumulates. The channels are N, K, X/16 (at least 1) and 1, Z. Unlike Algorithm 1, and as in the authors'
    code, the last convolution has a kernel of 1; only the last axis is squeezed, so that a batch of one stays a batch.
    """

    def __init__(
        self, num_features: int, sizes: Sequence[int], *, crop_size: Shape, slice_axis: int, num_classes: int
    ) -> None:
        """`num_classes` is K, the most clusters that a clusterer can have."""
        super().__init__()
        self.slice_axis, num_clusterers = slice_axis, len(sizes)
        size_x, size_y = (crop_size[axis] for axis in in_slice_axes(slice_axis))
        num_slices, reduced = crop_size[slice_axis], max(1, size_x // 16)
        self.clusterers = nn.Sequential(_block(num_features, num_clusterers), _block(num_clusterers, num_clusterers))
        self.classes = nn.Sequential(_block(size_y, num_classes), _block(num_classes, num_classes))
        self.rows = nn.Sequential(_block(size_x, reduced), _block(reduced, 1))
        self.slices = nn.Sequential(_block(num_slices, num_slices), nn.Conv3d(num_slices, num_slices, 1), nn.ReLU())
        impossible = torch.arange(num_classes) >= torch.tensor(list(sizes))[:, None]  # (N, K)
        self.register_buffer("impossible", impossible, persistent=False)

    def forward(self, features: Tensor, chosen: Tensor) -> Tensor:
        """Logits (M, N, K) of the slices that `chosen` (B, Z) has True for, in their order."""
        x = features.movedim(2 + self.slice_axis, -1)  # (B, F, X, Y, Z)
        x = self.clusterers(x)  # (B, N, X, Y, Z)
        x = self.classes(x.permute(0, 3, 2, 1, 4))  # (B, K, X, N, Z)
        x = self.rows(x.permute(0, 2, 1, 3, 4))  # (B, 1, K, N, Z)
        x = self.slices(x.permute(0, 4, 3, 2, 1))  # (B, Z, N, K, 1)
        logits: Tensor = x.squeeze(-1)[chosen].float()
        return logits.masked_fill(self.get_buffer("impossible"), -torch.inf)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm3d(out_channels), nn.GELU())

"""Labels of slices by all clusterers at once.

B batch, Z slices, T values of a slice, N clusterers, k_j clusters of clusterer j.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from voxelseg.errors import DataError


class Clusterers:
    """Centres of all clusters of N clusterers, which never change, and the labels that they give.

    Takes 4 T bytes for each centre, on the CPU and then on the device that labels, to which they move with the first
    slices: 80 clusterers of 80 to 500 clusters on slices of 96 x 96 have 23,200 centres, 0.86 GB.
    """

    def __init__(self, centres: Tensor, sizes: Sequence[int], counts: Tensor) -> None:
        """`centres` (sum of k_j, T), clusterer by clusterer, and `counts` (sum of k_j), their slices in the fits."""
        assert len(centres) == len(counts) == sum(sizes)
        self.sizes = tuple(sizes)
        """k_j of each clusterer."""
        self.counts = counts
        self.sha256 = _sha256(centres, self.sizes)
        """Tells these clusterers from any others, even where only the order of their clusters differs."""
        self._centres = centres
        self._squares = torch.cat([part.square().sum(1) for part in self._split(centres)])  # no copy of all

    def __deepcopy__(self, memo: Any) -> "Clusterers":
        return self  # what never changes needs no copy where a network is copied, as for an average of its weights

    @torch.no_grad()
    def labels(self, rows: Tensor) -> Tensor:
        """Cluster (n, N), int64, that each clusterer puts each of the slices (n, T) into, computed in float32.

        The nearest centre has the smallest ||c||^2 - 2 x c, so that one matrix product serves all clusterers; the first
        of several at equal distance is taken. DataError unless the slices have as many values as the centres.
        """
        if rows.shape[1] != self._centres.shape[1]:
            raise DataError(
                f"slices of {rows.shape[1]} values, but the clusterers were fitted on slices of "
                f"{self._centres.shape[1]}. Pre-train with the crop size and slice axis that they were fitted with."
            )
        self._move_to(rows.device)
        with torch.autocast(rows.device.type, enabled=False):
            scores = torch.addmm(self._squares, rows.float(), self._centres.t(), alpha=-2)
        return torch.stack([part.argmin(1) for part in self._split(scores, 1)], 1)

    def _move_to(self, device: torch.device) -> None:
        self._centres, self._squares = self._centres.to(device), self._squares.to(device)

    def _split(self, values: Tensor, axis: int = 0) -> Sequence[Tensor]:
        """The part of each clusterer along `axis` (sum of k_j)."""
        return torch.split(values, list(self.sizes), axis)

    def most_common(self) -> Tensor:
        """Cluster (N,) of each clusterer that had most slices in its fit."""
        return torch.stack([part.argmax() for part in self._split(self.counts)])

    def log_frequencies(self, labels: Tensor) -> Tensor:
        """Logarithm (..., N) of the share of the slices that clusters (..., N) had in the fits, had each one more."""
        parts = [part.double() + 1 for part in self._split(self.counts)]
        table = torch.cat([(part / part.sum()).log() for part in parts]).to(labels.device)
        first = torch.tensor([0, *self.sizes[:-1]], device=labels.device).cumsum(0)
        return table[labels + first]

    def entropies(self) -> Tensor:
        """Entropy (N,) of the slices' clusters in each fit, as a share of that of equally large clusters, in [0, 1]."""
        shares = [part.double() / part.sum() for part in self._split(self.counts)]
        return torch.stack([-torch.xlogy(part, part).sum() / torch.tensor(float(len(part))).log() for part in shares])

    def largest_shares(self) -> Tensor:
        """Share (N,) of the slices that the largest cluster of each fit had."""
        return torch.stack([part.max() / part.sum() for part in self._split(self.counts)])


def _sha256(centres: Tensor, sizes: Sequence[int]) -> str:
    digest = hashlib.sha256(repr(tuple(sizes)).encode())
    digest.update(centres.contiguous().numpy().data)
    return digest.hexdigest()

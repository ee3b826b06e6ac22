"""One or several trained models applied to scans."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxelseg.checkpoint import Checkpoint
from voxelseg.errors import CheckpointError, ConfigError, VoxelsegError, memory_ran_out
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.predict.precision import half_precision
from voxelseg.predict.sliding_window import predict_volume
from voxelseg.preprocess.case import preprocess_image, to_scan
from voxelseg.volume import Volume


class Predictor:
    """An ensemble of networks that were trained with one plan; probabilities are averaged."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        *,
        device: str | torch.device = "cpu",
        overlap: float = 0.5,
        tta: bool = False,
    ) -> None:
        """`tta` averages over mirrored versions along the plan's mirror axes, never along others.

        Raises CheckpointError if the models differ in labels, patch, preprocessing or, with `tta`, mirror axes, and
        ConfigError for an `overlap` outside 0 to 0.9.
        """
        if not 0 <= overlap <= 0.9:
            raise ConfigError(f"overlap {overlap}: expected a share from 0 to 0.9.")
        first, *others = checkpoints
        for other in others:
            same = (
                other.labels == first.labels
                and other.plan.preprocessing_key() == first.plan.preprocessing_key()
                and other.plan.patch_size == first.plan.patch_size
                and (not tta or other.plan.mirror_axes == first.plan.mirror_axes)
            )
            if not same:
                raise CheckpointError(
                    "the models differ in labels, patch, preprocessing or mirror axes. Name folds of one run."
                )
        keep_freed_memory()
        self.plan = first.plan
        self.labels = first.labels
        self.device = torch.device(device)
        self.overlap = overlap
        self.mirror_axes = self.plan.mirror_axes if tta else ()
        self.batch_size = self.plan.batch_size if self.device.type == "cuda" else 1  # a batch saves no time on a CPU
        self.networks = [checkpoint.build().to(self.device) for checkpoint in checkpoints]

    def probabilities(
        self, scan: Volume, *, progress: Callable[[float], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Probability of each output (K, D, H, W) on the scan's canonical grid.

        Without regions K counts the background and the values of a voxel sum to 1. DataError if the scan does not fit
        the models, VoxelsegError if they fail on it, MemoryError if it is too large. `progress` is called with the
        share that is done.
        """
        image, placement = preprocess_image(scan, self.plan)
        try:
            with torch.inference_mode():
                values = predict_volume(
                    self._mean_probabilities,
                    torch.from_numpy(image),
                    window=self.plan.patch_size,
                    overlap=self.overlap,
                    mirror_axes=self.mirror_axes,
                    batch_size=self.batch_size,
                    device=self.device,
                    progress=progress,
                )
        except torch.OutOfMemoryError as error:
            raise VoxelsegError("the GPU's memory ran out. Free some of it, or use --device cpu.") from error
        except RuntimeError as error:
            if memory_ran_out(error):
                raise MemoryError(str(error).partition("\n")[0]) from error
            raise
        if not all(bool(output.isfinite().all()) for output in values):
            raise VoxelsegError(
                "the network's output is not a number. Check the scan's intensities; on a GPU, try --device cpu."
            )
        outside = np.zeros(self.labels.num_outputs, dtype=np.float32)
        if not self.labels.has_regions:
            outside[0] = 1.0
        return to_scan(values.numpy(), placement, outside=outside)

    def _mean_probabilities(self, batch: Tensor) -> Tensor:
        half = half_precision(self.device)
        total: Tensor | None = None
        for network in self.networks:
            with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
                logits = network(batch)
            probabilities = logits.float().sigmoid() if self.labels.has_regions else logits.float().softmax(dim=1)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        return total / len(self.networks)

    def label_map(self, scan: Volume, *, progress: Callable[[float], None] | None = None) -> Volume:
        """Label map (1, D, H, W) on the scan's grid."""
        return Volume(self.labels.decode(self.probabilities(scan, progress=progress))[None], scan.grid)

"""One or several trained models applied to scans."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxelseg.checkpoint import Checkpoint
from voxelseg.errors import CheckpointError, ConfigError, VoxelsegError, memory_ran_out
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.predict.precision import half_precision
from voxelseg.predict.sliding_window import Average, Placement, Weighting, predict_volume
from voxelseg.preprocess.case import preprocess_image, to_scan
from voxelseg.volume import Volume


class Predictor:
    """An ensemble of networks that were trained with one plan; their outputs are averaged."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        *,
        device: str | torch.device = "cpu",
        overlap: float = 0.5,
        placement: Placement = "even",
        weighting: Weighting = "gaussian",
        average: Average = "probabilities",
        tta: bool = False,
        postprocess: bool = True,
    ) -> None:
        """`overlap`, `placement`, `weighting` and `average` are those of the predict section of a configuration.

        `tta` averages over mirrored versions along the plan's mirror axes, never along others.

        `postprocess`: whether label maps are postprocessed as the models say; probabilities never are.

        Raises CheckpointError if the models differ in labels, patch, preprocessing, postprocessing that is wanted or,
        with `tta`, mirror axes, and ConfigError for an `overlap` outside 0 to 0.9.
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
        self.postprocessing = postprocessing_of(checkpoints) if postprocess else Postprocessing()
        keep_freed_memory()
        self.plan = first.plan
        self.labels = first.labels
        self.device = torch.device(device)
        self.overlap = overlap
        self.placement: Placement = placement
        self.weighting: Weighting = weighting
        self.average: Average = average
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
                    self._mean_output,
                    torch.from_numpy(image),
                    window=self.plan.patch_size,
                    overlap=self.overlap,
                    placement=self.placement,
                    weighting=self.weighting,
                    mirror_axes=self.mirror_axes,
                    batch_size=self.batch_size,
                    device=self.device,
                    progress=progress,
                )
                if self.average == "logits":
                    for slice_hw in values.unbind(dim=1):  # (K, H, W), one by one: no second copy of them all
                        slice_hw.copy_(self._to_probabilities(slice_hw, dim=0))
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

    def _mean_output(self, batch: Tensor) -> Tensor:
        """Mean over the networks of what is to be averaged."""
        half = half_precision(self.device)
        total: Tensor | None = None
        for network in self.networks:
            with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
                logits = network(batch)
            output = logits.float() if self.average == "logits" else self._to_probabilities(logits.float(), dim=1)
            total = output if total is None else total + output
        assert total is not None
        return total / len(self.networks)

    def _to_probabilities(self, logits: Tensor, *, dim: int) -> Tensor:
        return logits.sigmoid() if self.labels.has_regions else logits.softmax(dim=dim)

    def decode(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Label map (D, H, W) of probabilities (K, D, H, W), postprocessed."""
        return self.postprocessing.apply(self.labels.decode(probabilities), self.labels)

    def label_map(self, scan: Volume, *, progress: Callable[[float], None] | None = None) -> Volume:
        """Label map (1, D, H, W) on the scan's grid, postprocessed."""
        return Volume(self.decode(self.probabilities(scan, progress=progress))[None], scan.grid)


def prediction_settings(
    checkpoints: Sequence[Checkpoint], averaging: Mapping[str, Any], *, postprocess: bool
) -> dict[str, Any]:
    """All that decides what a `Predictor` makes of a scan: what a folder of predictions records.

    `averaging` has the options of a `Predictor` on windows, mirrored versions and what is averaged.
    """
    kept = postprocessing_of(checkpoints) if postprocess else Postprocessing()
    return {
        "models": [checkpoint.fingerprint() for checkpoint in checkpoints],
        **averaging,
        "postprocessing": kept.to_dict() if kept else None,
    }


def postprocessing_of(checkpoints: Sequence[Checkpoint]) -> Postprocessing:
    """What the models say to keep of their label maps; all of it for models after no choice.

    CheckpointError if they say different things, or what this version does not know.
    """
    found = [_postprocessing(checkpoint) for checkpoint in checkpoints]
    for checkpoint, kept in zip(checkpoints, found, strict=True):
        if kept != found[0]:
            raise CheckpointError(
                f"{checkpoint.path}: its postprocessing is not that of {checkpoints[0].path}. Run `voxelseg train` "
                "again, which chooses one for all folds when the last is finished, or predict without "
                "(--no-postprocess)."
            )
    return found[0]


def _postprocessing(checkpoint: Checkpoint) -> Postprocessing:
    if checkpoint.postprocessing is None:
        return Postprocessing()
    try:
        return Postprocessing.from_dict(checkpoint.postprocessing, checkpoint.labels)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: its postprocessing is not one of this voxelseg ({error}). Update voxelseg, or predict "
            "without (--no-postprocess)."
        ) from error

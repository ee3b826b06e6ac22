"""One or several trained models applied to scans."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxelseg.checkpoint import Checkpoint
from voxelseg.data.dataset import Case
from voxelseg.errors import CheckpointError, DataError
from voxelseg.files import read_json, sha256_of_json, unfinished, write_json
from voxelseg.io import read_channels, write_volume
from voxelseg.ops.allocator import keep_freed_memory
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
        batch_size: int = 1,
    ) -> None:
        """`tta` averages over mirrored versions along the plan's mirror axes, never along others.

        Raises CheckpointError if the models differ in labels, patch or preprocessing.
        """
        first, *others = checkpoints
        for other in others:
            same = (
                other.labels == first.labels
                and other.plan.preprocessing_key() == first.plan.preprocessing_key()
                and other.plan.patch_size == first.plan.patch_size
            )
            if not same:
                raise CheckpointError("the models differ in labels, patch or preprocessing. Name folds of one run.")
        keep_freed_memory()
        self.plan = first.plan
        self.labels = first.labels
        self.device = torch.device(device)
        self.overlap = overlap
        self.mirror_axes = self.plan.mirror_axes if tta else ()
        self.batch_size = batch_size
        self.networks = [checkpoint.build().to(self.device) for checkpoint in checkpoints]

    def probabilities(
        self, scan: Volume, *, progress: Callable[[float], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Probability of each output (K, D, H, W) on the scan's canonical grid.

        Without regions K counts the background and the values of a voxel sum to 1.
        """
        image, placement = preprocess_image(scan, self.plan)
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
        outside = np.zeros(self.labels.num_outputs, dtype=np.float32)
        if not self.labels.has_regions:
            outside[0] = 1.0
        return to_scan(values.numpy(), placement, outside=outside)

    def _mean_probabilities(self, batch: Tensor) -> Tensor:
        total: Tensor | None = None
        for network in self.networks:
            with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
                logits = network(batch)
            probabilities = logits.float().sigmoid() if self.labels.has_regions else logits.float().softmax(dim=1)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        return total / len(self.networks)

    def label_map(self, scan: Volume, *, progress: Callable[[float], None] | None = None) -> Volume:
        """Label map (1, D, H, W) on the scan's grid."""
        return Volume(self.labels.decode(self.probabilities(scan, progress=progress))[None], scan.grid)


def predict_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    output: Path,
    *,
    file_ending: str = ".nii.gz",
    probabilities: bool = False,
    settings: dict[str, object] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Path]:
    """Write `output`/<case><file_ending> for each case; returns the paths of the label maps by case.

    With `probabilities` also <case>_probabilities.nii.gz, 4D with one channel per output. prediction.json records the
    `settings` (models, options); outputs of an earlier run with the same settings and the same scans are kept, others
    are made again. Cases that cannot be read are left out, the others go on, and a DataError lists them all at the end.
    """
    output = Path(output)
    unfinished(output)
    record = output / "prediction.json"
    key = sha256_of_json(settings or {})
    done: dict[str, list[list[int]]] = {}
    if record.is_file():
        earlier = read_json(record, remedy="Delete it to predict all cases again.")
        done = earlier.get("cases", {}) if earlier.get("key") == key else {}
    paths: dict[str, Path] = {}
    failed: list[str] = []
    for case in cases:
        path = output / f"{case.id}{file_ending}"
        extra = output / f"{case.id}_probabilities.nii.gz"
        paths[case.id] = path
        try:
            states = [[file.stat().st_size, file.stat().st_mtime_ns] for file in case.images]
            if done.get(case.id) == states and path.is_file() and (extra.is_file() or not probabilities):
                continue
            scan = read_channels(case.images)
            values = predictor.probabilities(scan, progress=None if progress is None else partial(progress, case.id))
        except (DataError, OSError) as error:
            failed.append(f"{case.id}: {error}")
            paths.pop(case.id)
            continue
        if probabilities:
            write_volume(extra, Volume(values, scan.grid))
        write_volume(path, Volume(predictor.labels.decode(values)[None], scan.grid))
        done[case.id] = states
        write_json(record, {"key": key, "settings": settings or {}, "cases": done})
        if progress is not None:
            progress(case.id, 1.0)
    if failed:
        listed = "\n  ".join(failed)
        raise DataError(f"{len(failed)} of {len(cases)} cases could not be predicted, the others were:\n  {listed}")
    return paths

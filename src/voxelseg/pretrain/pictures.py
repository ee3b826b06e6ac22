"""What a pretext task looks like at the end of its training: pictures of one crop, for the report."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from voxelseg.files import atomic_path
from voxelseg.pretrain.crops import CropSource
from voxelseg.pretrain.methods.method import Pretext
from voxelseg.train.loop.step import moved

PICTURES_FILE = "pictures.npz"


@torch.no_grad()
def write_pictures(folder: Path, pretext: Pretext, source: CropSource, *, device: torch.device) -> None:
    """Write PRE/pictures.npz with the pictures of the source's first batch; nothing if the task has none.

    Leaves `pretext` in evaluation mode. VoxelsegError if the file cannot be written.
    """
    pretext.eval()
    batch = default_collate([source.sample(number) for number in range(source.batch_size)])
    found = pretext.pictures(moved(batch, device))
    if not found:
        return
    arrays = {title: values.detach().float().cpu().numpy() for title, values in found.items()}
    with atomic_path(folder / PICTURES_FILE) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]

"""A data set: which files belong together, and what their numbers mean."""

from dataclasses import dataclass, field
from pathlib import Path

from voxelseg.data.labels import LabelScheme


@dataclass(frozen=True)
class Case:
    """One scan with its label map, if it has one."""

    id: str
    """Unique name inside the data set; outputs are named after it."""
    images: tuple[Path, ...]
    """One file with all channels, or one file per channel in the order of the data set's channels."""
    label: Path | None = None
    patient: str = ""
    """Cases of one patient never go to different folds. Defaults to the case id."""
    fold: int | None = None
    """Fold that the user wants this case to be held out in; None leaves it to the seeded split."""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.id)


@dataclass(frozen=True)
class Dataset:
    """Cases, channels and labels of one data set, read from any layout."""

    name: str
    root: Path
    layout: str
    """Key of LAYOUTS that read it."""
    channels: tuple[str, ...]
    """Name of each input channel, such as "CT" or "FLAIR"."""
    labels: LabelScheme
    cases: tuple[Case, ...]
    """Cases for training, sorted by id."""
    test_cases: tuple[Case, ...] = ()
    """Cases that are never trained on."""
    file_ending: str = ".nii.gz"
    """Suffix of outputs."""
    problems: tuple[str, ...] = field(default=())
    """What the layout found missing or doubtful while listing files; `check` shows it."""

"""A data set: which files belong together, what their numbers mean, and what is wrong with it."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from voxelseg.data.codes import CODES
from voxelseg.data.labels import LabelScheme

Severity = Literal["error", "warning", "info"]

_PATIENT_PATTERNS = (
    re.compile(r"(sub-[A-Za-z0-9]+)(?:_.*)?"),  # BIDS: sub-01_ses-2_T1w
    re.compile(r"(patient[-_]?\d+)(?:_.*)?", re.IGNORECASE),  # ACDC: patient001_frame01
    re.compile(r"((?:.*_)?pat\d+)_\d+", re.IGNORECASE),  # BraTS: brats_2013_pat0005_1
)


def patient_of(case_id: str) -> str:
    """Patient that a case id names; the id itself where it names none.

    Understood are BIDS ids (`sub-<label>`) and `patient<number>`, each alone or followed by `_...`, and
    `..._pat<number>_<number>`. A file list's `patient` column or a `patients` table in dataset.json goes before this
    rule.
    """
    for pattern in _PATIENT_PATTERNS:
        if match := pattern.fullmatch(case_id):
            return match.group(1)
    return case_id


def is_ct(channel: str) -> bool:
    """Whether a channel of this name holds Hounsfield units: "CT", as in nnU-Net."""
    return channel.strip().lower() == "ct"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong or doubtful in a data set."""

    case: str
    """Id of the case; empty if it concerns the data set as a whole."""
    severity: Severity
    """error: training would fail or learn something wrong; warning: probably a mistake; info: good to know."""
    code: str
    """Kind of problem, the same for all cases, such as "missing-label"; a key of `CODES`."""
    message: str
    """What was found and what was expected, with the file."""
    remedy: str
    """What to do about it."""

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code

    def to_dict(self) -> dict[str, str]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """One scan with its label map, if it has one."""

    id: str
    """Unique name inside the data set; outputs are named after it."""
    images: tuple[Path, ...]
    """One file with all channels, or one file per channel in the order of the data set's channels."""
    label: Path | None = None
    patient: str = ""
    """Cases of one patient never go to different folds. Defaults to what `patient_of` reads from the id."""
    fold: int | None = None
    """Fold that the user wants this case to be held out in; None leaves it to the seeded split."""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", patient_of(self.id))


@dataclass(frozen=True)
class Dataset:
    """Cases, channels and labels of one data set, read from any layout."""

    name: str
    root: Path
    """Folder that holds the data set."""
    layout: str
    """Key of LAYOUTS that read it."""
    channels: tuple[str, ...]
    """Name of each input channel, such as "CT" or "FLAIR"."""
    labels: LabelScheme
    """`NO_LABELS` if the scans have none, or they are not used."""
    cases: tuple[Case, ...]
    """Cases for training whose files all exist, sorted by id."""
    test_cases: tuple[Case, ...] = ()
    """Cases that are never trained on, sorted by id; some may have a label."""
    file_ending: str = ".nii.gz"
    """Suffix of outputs."""
    problems: tuple[Problem, ...] = ()
    """What the layout found missing or doubtful while listing files; `check` adds what is inside the files."""
    source: Path = Path()
    """What the user named: a file list, or the folder `root`, which is the default."""

    def __post_init__(self) -> None:
        if self.source == Path():
            object.__setattr__(self, "source", self.root)

    @property
    def labelled(self) -> bool:
        """Whether its cases have label maps that are used."""
        return bool(self.labels.classes)

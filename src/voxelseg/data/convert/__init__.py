"""Public data sets: where they come from, and the conversion of their folders into a layout that voxelseg reads."""

from voxelseg.data.convert.abdomen import ABDOMEN
from voxelseg.data.convert.brain import BRAIN
from voxelseg.data.convert.conversion import Conversion, convert_public_data
from voxelseg.data.convert.decathlon import DECATHLON
from voxelseg.data.convert.public import HeldOut, Part, PublicDataset, Source
from voxelseg.errors import ConfigError, did_you_mean

__all__ = [
    "PUBLIC_DATASETS",
    "Conversion",
    "HeldOut",
    "Part",
    "PublicDataset",
    "Source",
    "convert_public_data",
    "find_public_data",
]

PUBLIC_DATASETS: dict[str, PublicDataset] = {one.name: one for one in (*ABDOMEN, *BRAIN, *DECATHLON)}
"""Every data set that `find_public_data` knows, by name."""


def find_public_data(name: str) -> PublicDataset:
    """The public data set of this name; ConfigError, with the closest one, for an unknown name."""
    if name not in PUBLIC_DATASETS:
        raise ConfigError(
            f"there is no public data set {name!r}{did_you_mean(name, PUBLIC_DATASETS)}. "
            "`voxelseg data list` shows all of them."
        )
    return PUBLIC_DATASETS[name]

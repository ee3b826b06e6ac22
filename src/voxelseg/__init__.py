"""voxelseg: 3D medical image segmentation with large-kernel networks, from raw scans to scored predictions.

Importing the package does nothing and is instant; a name's module is loaded when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from voxelseg.version import __version__

if TYPE_CHECKING:
    from voxelseg.io import read_volume, write_volume
    from voxelseg.nets import create_model, list_models
    from voxelseg.nets.inference import optimize_for_inference
    from voxelseg.volume import Volume

_HOMES = {
    "Volume": "voxelseg.volume",
    "create_model": "voxelseg.nets",
    "list_models": "voxelseg.nets",
    "optimize_for_inference": "voxelseg.nets.inference",
    "read_volume": "voxelseg.io",
    "write_volume": "voxelseg.io",
}

__all__ = [
    "Volume",
    "__version__",
    "create_model",
    "list_models",
    "optimize_for_inference",
    "read_volume",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'voxelseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

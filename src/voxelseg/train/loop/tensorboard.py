"""The log of a training as curves for TensorBoard, an extra."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from voxelseg.errors import ConfigError

TENSORBOARD_FOLDER = "tensorboard"
_NOT_CURVES = ("epoch", "step", "update")


class TensorBoard:
    """Curves in `folder`; what a killed run wrote there from step `first_step` on is hidden by TensorBoard."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """ConfigError if tensorboard is not installed."""
        self._writer = summary_writer()(str(folder), purge_step=first_step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a point after `step` steps to the curve of each number in `values`; written at once."""
        for name, value in curves(values):
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def summary_writer() -> Any:
    """PyTorch's class that writes curves; ConfigError, with what to install, if tensorboard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "train.tensorboard needs the package tensorboard, which is not installed. Run pip install "
            "'voxelseg[tensorboard]', or leave the setting out."
        ) from error
    return SummaryWriter


def curves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Name and value of each number in the nested `values` of a log event, "validation_dice/liver"; no true or false.

    Of a pair of counts, active kernels and all, the share.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from curves(value, f"{prefix}{name}/")
        elif isinstance(value, list | tuple) and len(value) == 2:
            yield f"{prefix}{name}", value[0] / value[1]
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in _NOT_CURVES:
            yield f"{prefix}{name}", float(value)

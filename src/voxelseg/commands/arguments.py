"""What the texts of options that several commands take mean."""

import re
from typing import TYPE_CHECKING

from voxelseg.errors import ConfigError

if TYPE_CHECKING:
    import torch

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Seconds of "90s", "20m", "1.5h" or "1h30m"; ConfigError for anything else, and for no time at all."""
    match = _DURATION.fullmatch(text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise ConfigError(f"budget {text!r}: expected a time such as 90s, 20m or 1h30m.")
    return total


def parse_folds(text: str | int) -> list[int] | None:
    """Fold numbers of "0" or "0,2" in ascending order, None for "all"; ConfigError for anything else."""
    if str(text).strip() == "all":
        return None
    try:
        folds = {int(part) for part in str(text).split(",")}
    except ValueError as error:
        raise ConfigError(f"fold {text!r}: expected a number, a list such as 0,1, or all.") from error
    return sorted(folds)


def chosen_folds(text: str | int, count: int) -> list[int]:
    """Numbers of the folds that `text` asks for, of `count`; ConfigError for one that there is not."""
    chosen = parse_folds(text)
    if chosen is None:
        return list(range(count))
    wrong = [fold for fold in chosen if not 0 <= fold < count]
    if wrong:
        raise ConfigError(f"fold {wrong[0]}: the data set has folds 0 to {count - 1}.")
    return chosen


def parse_growth(text: str) -> list[int]:
    """Kernel sizes before and after of "3:5"; ConfigError for anything but two odd sizes, the first one smaller."""
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    small, large = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (0 < small < large and small % 2 and large % 2):
        raise ConfigError(f"kernel growth {text!r}: expected two odd sizes, the smaller one first, such as 3:5.")
    return [small, large]


def choose_device(name: str) -> "torch.device":
    """Device of "cpu", "cuda" or "cuda:N"; "auto" is a GPU if there is one. ConfigError for one that is not there."""
    import torch  # slow to load, and not every command computes

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise ConfigError(f"device {name!r}: expected cpu, cuda, cuda:N or auto.")
    if int(match[1] or 0) >= count:
        found = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise ConfigError(f"device {name}: found {found} here. Use --device cpu, or a number below {max(count, 1)}.")
    return torch.device(name)

"""What the report says of the weights that a training started from: which tensors moved, and which started fresh."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxelseg.errors import DataError
from voxelseg.report.run import TRANSFER_FILE, Fold
from voxelseg.train.start.outcomes import OUTCOMES


@dataclass(frozen=True)
class FoldTransfer:
    """Of one fold."""

    name: str
    sentence: str
    rows: tuple[tuple[str, str, str], ...]
    """What became of tensors, how many, and their names."""
    remarks: tuple[str, ...]


def fold_transfers(folds: Sequence[Fold]) -> list[FoldTransfer]:
    """What became of the tensors of each fold that did not start from fresh weights; DataError for a damaged record."""
    try:
        return [_fold_transfer(fold.name, fold.transfer) for fold in folds if fold.transfer is not None]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{TRANSFER_FILE} of a fold is no record of a transfer ({error!r}). Delete it to get the report without it."
        ) from error


def _fold_transfer(name: str, report: Mapping[str, Any]) -> FoldTransfer:
    named = {words: report.get(key) or () for key, words in OUTCOMES.items()}
    return FoldTransfer(
        name=name,
        sentence=f"From {report['path']} ({report['what']}): {report['share']:.1%} of the "
        f"{report.get('part', 'weights')} without heads.",
        rows=tuple((words, str(len(names)), ", ".join(names)) for words, names in named.items() if names),
        remarks=(*report["warnings"], *report.get("notes", ())),
    )

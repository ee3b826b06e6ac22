"""What the report says of the weights that a training started from: which tensors moved, and which started fresh."""

from collections.abc import Sequence
from dataclasses import dataclass

from voxelseg.report.run import Fold

OUTCOMES = {
    "matched": "taken",
    "grown": "taken, kernels grown",
    "averaged": "taken, channels averaged",
    "fresh_heads": "heads, start fresh",
    "untrained": "not pre-trained, start fresh",
    "missing": "not in the file, start fresh",
    "mismatched": "of another shape, start fresh",
    "left_out": "in the file only",
}
"""As in `voxelseg.train.start.matching`, which loads torch."""


@dataclass(frozen=True)
class FoldTransfer:
    """Of one fold."""

    name: str
    sentence: str
    rows: tuple[tuple[str, str, str], ...]
    """What became of tensors, how many, and their names."""
    remarks: tuple[str, ...]


def fold_transfers(folds: Sequence[Fold]) -> list[FoldTransfer]:
    """What became of the tensors of each fold that did not start from fresh weights."""
    found = []
    for fold in folds:
        report = fold.transfer
        if report is None:
            continue
        named = {words: report.get(key) or () for key, words in OUTCOMES.items()}
        found.append(
            FoldTransfer(
                name=fold.name,
                sentence=f"From {report['path']} ({report['what']}): {report['share']:.1%} of the "
                f"{report.get('part', 'weights')} without heads.",
                rows=tuple((words, str(len(names)), ", ".join(names)) for words, names in named.items() if names),
                remarks=(*report["warnings"], *report.get("notes", ())),
            )
        )
    return found

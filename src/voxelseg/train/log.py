"""log.jsonl: one JSON object per line, appended as the training goes, readable at any moment."""

import json
import os
from pathlib import Path
from typing import Any


class TrainLog:
    """Events of one fold's training.

    Events: start, resume, epoch (epoch, step, elapsed_s, loss, lr, validation_loss, validation_dice by class,
    mean_dice), end, stop.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one event; NaN and infinity become null."""
        finite = {key: _or_none(value) for key, value in values.items()}
        line = json.dumps({"event": event, **finite}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def continue_from(self, epoch: int) -> None:
        """Drop what a killed run wrote after the checkpoint of `epoch`, and a last line that it did not finish."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if event.get("event") != "epoch" or event["epoch"] < epoch:
                kept.append(line)
        temporary = self.path.with_name(f".partial-{self.path.name}")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)


def _or_none(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _or_none(item) for key, item in value.items()}
    return value

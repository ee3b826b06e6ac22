"""log.jsonl: one JSON object per line, appended as the training goes, readable at any moment."""

import json
from pathlib import Path
from typing import Any

from voxelseg.files import append_json_line, write_text


class TrainLog:
    """Events of one fold's training.

    Events: start, resume, epoch (epoch, step, elapsed_s, loss, lr, validation_loss, validation_dice by class,
    mean_dice), stop, end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one event; NaN and infinity become null."""
        append_json_line(self.path, {"event": event, **values})

    def continue_from(self, epoch: int) -> None:
        """Drop what a killed run wrote after the state that has `epoch` next: those epochs and a half-written line."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            done_again = event["event"] == "end" or (event["event"] == "epoch" and event["epoch"] >= epoch)
            if not done_again:
                kept.append(line + "\n")
        write_text(self.path, "".join(kept))

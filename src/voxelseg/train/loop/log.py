"""log.jsonl: one JSON object per line, appended as the training goes, readable at any moment."""

import json
from pathlib import Path
from typing import Any

from voxelseg.files import append_json_line, read_json_lines, write_text
from voxelseg.train.loop.stage import Stage

LOG_FILE = "log.jsonl"
DONE_AGAIN = frozenset({"epoch", "topology", "early_stop"})
"""Events that a continued training writes again if they come after the state that it continues from."""


class TrainLog:
    """Events of one training; each has the number of steps done.

    start, resume, stop (Ctrl-C), diverged (reason), end; epoch (epoch, elapsed_s, loss, lr, validation_loss, the scores
    and the score under the names of the objective, as validation_dice by class and mean_dice, best: whether it is the
    best validation so far); early_stop (epoch, best_epoch, null if no validation had a value to go by); topology (what
    a `TopologyUpdate` holds, also before the first step).
    """

    def __init__(self, path: Path, stage: Stage | None = None, *, writes: bool = True) -> None:
        """Counts go on from those of earlier stages, and with several stages each event has the name of its own.

        Of the processes of a training one `writes`; for the others nothing happens.
        """
        self.path = path
        self.writes = writes
        self.stage = stage or Stage()

    def write(self, event: str, **values: Any) -> None:
        """Append one event of the stage, with its own counts; NaN and infinity become null."""
        if not self.writes:
            return
        named = {} if self.stage.name is None else {"stage": self.stage.name}
        append_json_line(self.path, {"event": event, **named, **self.stage.counted_on(values)})

    def continue_from(self, step: int) -> None:
        """Drop what a killed run wrote after the state with `step` steps done, the end, and a half-written line."""
        if not self.writes or not self.path.is_file():
            return
        done = self.stage.steps + step

        def is_done_again(event: dict[str, Any]) -> bool:
            begins_anew = step == 0 and event.get("stage") == self.stage.name
            return event["event"] in DONE_AGAIN and (begins_anew or event["step"] > done)

        kept = [event for event in read_log(self.path) if event["event"] != "end" and not is_done_again(event)]
        write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Events of a log; none if there is no file. A half-written line, after a kill, is left out."""
    return read_json_lines(path)

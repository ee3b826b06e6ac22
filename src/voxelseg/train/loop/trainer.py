"""A training: steps, running validation, checkpoints, continuing."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NoReturn

import torch

from voxelseg.data.wording import some
from voxelseg.errors import StoppedError, VoxelsegError, WorkerError
from voxelseg.patches.loader import SampleSource, load_batches
from voxelseg.train.loop.budget import (
    StepTimer,
    epoch_is_over,
    epochs_done,
    progress,
    seconds_left,
    step_fits,
)
from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.loop.log import LOG_FILE, TrainLog
from voxelseg.train.loop.objective import Model, Objective, Validation
from voxelseg.train.loop.schedule import lr_factor
from voxelseg.train.loop.stage import Stage
from voxelseg.train.loop.state import (
    Counters,
    random_states,
    read_state,
    restore_random_states,
    write_state,
)
from voxelseg.train.loop.step import Stepper
from voxelseg.train.loop.stopping import stop_requests
from voxelseg.train.loop.tensorboard import TENSORBOARD_FOLDER, TensorBoard
from voxelseg.train.loop.watch import Watch
from voxelseg.train.machines.distributed import Processes, processes_here
from voxelseg.train.machines.resources import num_cores
from voxelseg.train.sparse.settings import SparseConfig
from voxelseg.train.start.transfer import TransferConfig

SAVE_EVERY_S = 300.0
"""Epochs may be long on a CPU: no more than this is lost when the process is killed."""
SAVING_SHARE = 0.05
"""Of the time, at most, for saving epochs that end without a validation, which may be as short as a step."""
STOP_REACHES_US_S = 1.0
"""A SIGTERM to all processes, as batch systems send it, may have ended those that make patches this long before us."""
MOST_OVERFLOWS = 50
"""Steps in a row that loss scaling may skip in float16 before the training counts as diverged."""
_WORKERS = {"cpu": 1, "cuda": 8}
"""Processes that make patches, unless the user says how many or there are fewer cores."""


def usual_workers(kind: str) -> int:
    """Processes that make patches for a training on a device of that kind, "cpu" or "cuda"."""
    return max(min(_WORKERS[kind], num_cores() // processes_here()), 1)


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    share: float
    """Of the whole training that is done, 0 to 1."""
    step: int
    loss: float
    """Of the last step."""
    score: float | None
    """Of the last running validation."""
    elapsed_s: float
    left_s: float


class Trainer(Generic[Model]):
    """Trains `model` for an objective on samples of `source`; `folder` holds its state and log."""

    def __init__(
        self,
        model: Model,
        config: LoopConfig,
        source: SampleSource,
        *,
        objective: Objective[Model],
        validation: Validation[Model],
        folder: Path,
        device: torch.device,
        transfer: TransferConfig | None = None,
        sparse: SparseConfig | None = None,
        processes: Processes | None = None,
        stage: Stage | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_best: Callable[["Trainer[Model]"], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_best` keeps the weights: it is called when the running validation is better than ever before.

        `clock` gives seconds; a time budget is kept by it. ConfigError for settings that the device, the network or the
        data cannot have.
        """
        self.model = model.to(device)
        self.config = config
        self.source = source
        self.folder = folder
        self.device = device
        self.processes = processes or Processes.alone(device)
        self.processes.check_batch(source.batch_size)
        self.on_progress = on_progress
        self.on_best = on_best
        self.clock = self.processes.clock(clock)
        self.stage = stage or Stage()
        self.log = TrainLog(folder / LOG_FILE, self.stage, writes=self.processes.is_main)
        self.tensorboard: TensorBoard | None = None
        self.counters = Counters()
        self.stepper = Stepper(
            self.model,
            config,
            objective,
            transfer=transfer or TransferConfig(),
            sparse=sparse or SparseConfig(),
            seed=source.seed,
            processes=self.processes,
        )
        self.watch = Watch(config, validation, self.stepper, self.clock)
        self.learning_rate = config.lr
        self.timer = StepTimer(self.clock)
        self._saved = self.clock()

    @property
    def result(self) -> Model:
        """The model to use: the average of the weights if one is kept."""
        return self.stepper.result

    @property
    def finished(self) -> bool:
        """Whether the training has reached its end."""
        return self.counters.stopped_early or self.progress >= 1.0

    @property
    def progress(self) -> float:
        """Share of the training that is done, by steps, or by time if there is a budget."""
        return progress(self.config, self.counters)

    def fit(self) -> None:
        """Train from where the state stands to the end.

        Saves the state after each epoch, more often if epochs are long, less often if they are but a few steps. Raises
        StoppedError after Ctrl-C, with the state saved, and VoxelsegError if loss or gradients are no longer numbers.
        """
        with self._curves(), stop_requests(only_once=self.processes.count > 1) as stop:
            self._begin()
            batches = self._load_batches()
            while not self.finished:
                loss = self._take_step(self._next_batches(batches, stop))
                self._watch_budget()
                epoch_ended = epoch_is_over(self.config, self.counters)
                validated = epoch_ended and self._end_epoch()
                stopping = self.processes.any(stop.is_set())
                if stopping or validated or self._saving_is_due(epoch_ended=epoch_ended):
                    self.save_state()
                if stopping:
                    self._stop()
                self._report(loss)
                self.timer.wait()
        self._write_event("end")

    @contextmanager
    def _curves(self) -> Iterator[None]:
        """Meanwhile the log is written as curves, too, if that is wanted."""
        if not self.config.tensorboard or not self.processes.is_main:
            yield
            return
        done = self.stage.steps + self.counters.step
        first_step = done + 1 if done else 0
        with closing(TensorBoard(self.folder / TENSORBOARD_FOLDER, first_step=first_step)) as self.tensorboard:
            yield

    def _begin(self) -> None:
        if self.processes.rank and not self.counters.step:
            torch.manual_seed(self.source.seed + self.processes.rank)  # dropout is to differ between the processes
        self._write_event("resume" if self.counters.step else "start")
        if self.stepper.topology is not None and not self.counters.step:
            self._write_record("topology", asdict(self.stepper.topology.census()))
        self.timer.start(self.counters.elapsed_s)
        self._saved = self.clock()

    def _load_batches(self) -> Iterator[Any]:
        workers = self.config.workers
        return load_batches(
            self.source,
            first_sample=self._first_sample(),
            workers=usual_workers(self.device.type) if workers is None else workers,
            pin_memory=self.device.type == "cuda",
            process=self.processes.rank,
            num_processes=self.processes.count,
        )

    def _first_sample(self) -> int:
        """Number of the first sample of the next step."""
        return (self.stage.steps + self.counters.step) * self.config.accumulate * self.source.batch_size

    def _next_batches(self, batches: Iterator[Any], stop: threading.Event) -> list[Any]:
        """The batches of a step, all of them, so that no step is left half done if a process that makes them dies."""
        found: list[Any] | None = None
        try:
            found = list(islice(batches, self.config.accumulate))
        except WorkerError:
            if not stop.wait(STOP_REACHES_US_S):
                raise
        if self.processes.any(found is None) or found is None:
            self.save_state()
            self._stop()
        return found

    def _stop(self) -> NoReturn:
        self._write_event("stop")
        self.processes.barrier()  # a batch system may kill the one that still writes once another has ended
        raise StoppedError("stopped; the state is saved. The same command continues the training.")

    def _write_event(self, event: str, **values: Any) -> None:
        counters = self.counters
        self.log.write(
            event, step=counters.step, epoch=counters.epoch, elapsed_s=counters.elapsed_s, time=time.time(), **values
        )

    def _take_step(self, batches: Sequence[Any]) -> float:
        """Loss of a step, which is counted."""
        counters, config = self.counters, self.config
        self.timer.batch_arrived()
        self.learning_rate = config.lr * lr_factor(config, self.progress) * self.watch.plateau.factor
        loss, gradient_norm = self.stepper.gradients(batches)
        self._check_finite(loss, gradient_norm)
        self.stepper.update(self.learning_rate)
        counters.step += 1
        if math.isfinite(loss):
            counters.loss_sum += loss
            counters.loss_count += 1
        counters.elapsed_s = self.timer.elapsed_s()
        moved = self.stepper.finish(step=counters.step, progress=self.progress)
        if moved is not None:
            self._write_record("topology", asdict(moved))
        self.timer.step_ended()
        return loss

    def _check_finite(self, loss: float, gradient_norm: float) -> None:
        """VoxelsegError, before the weights are touched, if the step would spoil them."""
        counters = self.counters
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            counters.overflows = 0
            return
        counters.overflows += 1
        may_pass = self.stepper.scaler.is_enabled() and self.stepper.statistics_are_finite()
        if may_pass and counters.overflows < MOST_OVERFLOWS:
            return
        what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradients' norm became {gradient_norm}"
        reason = f"{what} in step {counters.step + 1} ({self._circumstances()})"
        self._write_event("diverged", reason=reason)
        raise VoxelsegError(
            f"{self.folder}: {reason}; the last good state is kept. Train into another --out with a lower learning "
            "rate (--set train.lr=...) or in float32 (--set train.precision=fp32)."
        )

    def _circumstances(self) -> str:
        """Parts of the loss, and cases, of the step."""
        first = self._first_sample()
        cases = self.source.cases_of(range(first, first + self.config.accumulate * self.source.batch_size))
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.stepper.worst_parts().items())
        return f"{values}; patches of {some(sorted(set(cases)))}"

    def _watch_budget(self) -> None:
        """Note whether a further step fits, and after the first step how long the validation at the end will take."""
        counters, budget_s = self.counters, self.config.budget_s
        if budget_s is None:
            return
        counters.time_is_up = not step_fits(budget_s, counters, step_s=self.timer.longest_step_s)
        if not counters.time_is_up and self.watch.time_first_patch(counters):
            counters.elapsed_s = self.timer.elapsed_s()
            counters.time_is_up = not step_fits(budget_s, counters, step_s=self.timer.longest_step_s)

    def _end_epoch(self) -> bool:
        """Validate if that is due, and log; whether it was due."""
        counters = self.counters
        validates = self.watch.is_due(counters)
        record = self.watch.look(counters) if validates else self.watch.not_validated()
        if record["best"]:
            self._keep_best()
        counters.elapsed_s = self.timer.elapsed_s()
        loss = counters.loss_sum / counters.loss_count if counters.loss_count else math.nan
        averages = {"loss": loss, "lr": self.learning_rate}
        place = {"epoch": counters.epoch, "step": counters.step, "elapsed_s": counters.elapsed_s}
        self._write_record("epoch", {**place, **averages, **record})
        if validates and self.watch.best.is_too_old(counters.epoch) and not self.finished:
            counters.stopped_early = True
            best = self.watch.best.epoch
            self._write_event("early_stop", best_epoch=best if best >= 0 else None)
        counters.loss_sum, counters.loss_count = 0.0, 0
        counters.epoch = epochs_done(self.config, counters)
        return validates

    def _saving_is_due(self, *, epoch_ended: bool) -> bool:
        since_s = self.clock() - self._saved
        pays = epoch_ended and self.counters.saving_s <= SAVING_SHARE * since_s
        return pays or self.finished or since_s > SAVE_EVERY_S

    def _write_record(self, event: str, record: dict[str, Any]) -> None:
        self.log.write(event, **record)
        if self.tensorboard is not None:
            self.tensorboard.write(self.stage.steps + self.counters.step, record)

    def _keep_best(self) -> None:
        if not self.config.save_best or self.on_best is None:
            return
        began = self.clock()
        if self.processes.is_main:
            self.on_best(self)
        self.counters.saving_best_s = max(self.counters.saving_best_s, self.clock() - began)

    def _report(self, loss: float) -> None:
        if self.on_progress is None:
            return
        counters, left_s = self.counters, seconds_left(self.config, self.counters)
        self.on_progress(Progress(self.progress, counters.step, loss, counters.score, counters.elapsed_s, left_s))

    def save_state(self) -> None:
        """Write everything that continuing needs, atomically."""
        began = self.clock()
        state = {
            **self.stepper.state(),
            **self.watch.state(),
            "counters": asdict(self.counters),
            "random": self.processes.gather(random_states(self.device)),
        }
        if self.processes.is_main:
            write_state(self.folder / self.stage.state_file, state)
        self._saved = self.clock()
        self.counters.saving_s = max(self.counters.saving_s, self._saved - began)

    def load_state(self) -> bool:
        """Continue from the saved state; False if there is none, CheckpointError if it does not fit.

        An error of memory that ran out is passed on: the state is good.
        """
        found = read_state(self.folder / self.stage.state_file, self._restore)
        self.log.continue_from(self.counters.step)
        return found

    def _restore(self, state: dict[str, Any]) -> None:
        self.stepper.restore(state)
        self.watch.restore(state)
        self.counters = Counters(**state["counters"])
        generators, rank = state["random"], self.processes.rank  # of each process; their number may have changed
        restore_random_states(generators[rank % len(generators)], self.device)
        if rank >= len(generators):
            torch.manual_seed(torch.initial_seed() + rank)  # not the draws of another process

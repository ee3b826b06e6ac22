"""The training loop of one fold: steps, running validation, checkpoints, continuing."""

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import CheckpointError, ConfigError, StoppedError, VoxelsegError, WorkerError, memory_ran_out
from voxelseg.files import atomic_path, write_error
from voxelseg.losses import DeepSupervisionLoss, DiceCrossEntropy, deep_supervision_weights
from voxelseg.nets import Network
from voxelseg.patches.loader import PatchSource, load_batches
from voxelseg.predict.precision import half_precision
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.config import TrainConfig
from voxelseg.train.log import TrainLog
from voxelseg.train.schedule import Plateau, lr_factor
from voxelseg.train.validation import RunningValidation

STATE_FILE = "training_state.pt"
LOG_FILE = "log.jsonl"
BUDGET_EPOCHS = 50
SAVE_EVERY_S = 300.0
"""Epochs may be long on a CPU: no more than this is lost when the process is killed."""
STOP_REACHES_US_S = 1.0
"""A SIGTERM to all processes, as batch systems send it, may have ended those that make patches this long before us."""
VALIDATION_TIME_SHARE = 0.03
"""With a budget, running validation is skipped while it has taken more than this share of the time, but at the end."""
LONGEST_VALIDATION = 0.01
"""With a budget, a running validation sees as many patches as fit into this share of it, and at least one."""
_WORKERS = {"cpu": 1, "cuda": 8}
"""Processes that make patches, unless the user says how many."""
MOST_OVERFLOWS = 50
"""Steps in a row that loss scaling may skip in float16 before the training counts as diverged."""


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    share: float
    """Of the whole training that is done, 0 to 1."""
    step: int
    loss: float
    """Of the last step."""
    mean_dice: float | None
    """Of the last running validation."""
    elapsed_s: float
    left_s: float


@dataclass
class _Counters:
    step: int = 0
    epoch: int = 0
    elapsed_s: float = 0.0
    """Since the start, without the time between an interruption and its continuation."""
    time_is_up: bool = False
    """No further step fits into the budget."""
    loss_sum: float = 0.0
    """Of this epoch's steps."""
    loss_count: int = 0
    validation_s: float = 0.0
    """All running validations together."""
    longest_validation_s: float = 0.0
    """The longest of them, or what the next one will take if that is more."""
    patch_s: float | None = None
    """One patch in the fastest of them."""
    saving_s: float = 0.0
    """The longest time that saving the state took."""
    mean_dice: float | None = None


class Trainer:
    """Trains `model` on patches of `source`; `folder` holds its state and log."""

    def __init__(
        self,
        model: Network,
        config: TrainConfig,
        source: PatchSource,
        *,
        validation_cases: Sequence[StoredCase],
        labels: LabelScheme,
        folder: Path,
        device: torch.device,
        on_progress: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds; a time budget is kept by it."""
        self.model = model.to(device)
        self.config = config
        self.source = source
        self.folder = folder
        self.device = device
        self.on_progress = on_progress
        self.clock = clock
        self.log = TrainLog(folder / LOG_FILE)
        self.counters = _Counters()
        self.precision = training_precision(config, device)
        table = torch.from_numpy(labels.region_table) if labels.has_regions else None
        self.loss = DiceCrossEntropy(
            region_table=table,
            dice_weight=config.dice_weight,
            ce_weight=config.ce_weight,
            batch_dice=config.batch_dice,
        ).to(device)
        self.supervised_loss: nn.Module = self.loss
        if model.deep_supervision:
            self.supervised_loss = DeepSupervisionLoss(self.loss, deep_supervision_weights(len(model.output_strides)))
        self.optimizer = _optimizer(model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.plateau = Plateau(config)
        self.averaged = copy.deepcopy(model) if config.ema else None
        self.validation = RunningValidation(
            validation_cases,
            count=config.validation_patches,
            patch_size=source.patch_size,
            labels=labels,
            seed=source.seed + 1,
        )
        self._overflows = 0
        self._started = self._saved = clock()
        self._idle_since: float | None = None
        self._longest_step_s = 0.0

    @property
    def result(self) -> Network:
        """The network to use: the average of the weights if one is kept."""
        return self.averaged or self.model

    @property
    def finished(self) -> bool:
        """Whether the training has reached its end."""
        return self.progress >= 1.0

    @property
    def progress(self) -> float:
        """Share of the training that is done, by steps, or by time if there is a budget."""
        counters, config = self.counters, self.config
        if config.budget_s is None:
            return min(1.0, counters.step / (config.epochs * config.steps_per_epoch))
        return 1.0 if counters.time_is_up else min(1.0, counters.elapsed_s / self._seconds_for_steps(config.budget_s))

    def _seconds_for_steps(self, budget_s: float) -> float:
        """The budget without the validation and saving that end it."""
        counters = self.counters
        return max(budget_s - counters.longest_validation_s - counters.saving_s, 1e-3 * budget_s)

    def fit(self) -> None:
        """Train from where the state stands to the end.

        Saves the state after each epoch, and more often if epochs are long. Raises StoppedError after Ctrl-C, with the
        state saved, and VoxelsegError if loss or gradients are no longer numbers.
        """
        counters, config = self.counters, self.config
        self._write_event("resume" if counters.step else "start")
        self._started = self._saved = self.clock()
        self._started -= counters.elapsed_s
        self._idle_since = None
        batches = load_batches(
            self.source,
            first_sample=counters.step * self.source.batch_size,
            workers=config.workers if config.workers is not None else _WORKERS[self.device.type],
            pin_memory=self.device.type == "cuda",
        )
        with _stop_requests() as stop:
            while not self.finished:
                try:
                    batch = next(batches)
                except WorkerError:
                    if not stop.wait(STOP_REACHES_US_S):
                        raise
                    self.save_state()
                    self._stop()
                loss = self._timed_step(*batch)
                if config.budget_s is not None:
                    self._watch_budget(config.budget_s)
                if self._epoch_is_over():
                    self._end_epoch()
                elif stop.is_set() or self.clock() - self._saved > SAVE_EVERY_S:
                    self.save_state()
                if stop.is_set():
                    self._stop()
                self._report(loss)
                self._idle_since = self.clock()
        self._write_event("end")

    def _stop(self) -> NoReturn:
        self._write_event("stop")
        raise StoppedError("stopped; the state is saved. The same command continues the training.")

    def _write_event(self, event: str) -> None:
        counters = self.counters
        self.log.write(event, step=counters.step, epoch=counters.epoch, elapsed_s=counters.elapsed_s, time=time.time())

    def _timed_step(self, image: Tensor, target: Tensor) -> float:
        """Loss of a step, which is counted, and its time with the wait for its batch."""
        counters = self.counters
        # The first batch waits for the workers to start, which says nothing about steps.
        waiting_since = self.clock() if self._idle_since is None else self._idle_since
        loss = self._step(image, target)
        now = self.clock()
        counters.step += 1
        counters.loss_sum += loss
        counters.loss_count += 1
        counters.elapsed_s = now - self._started
        self._longest_step_s = max(0.9 * self._longest_step_s, now - waiting_since)
        return loss

    def _watch_budget(self, budget_s: float) -> None:
        """Note whether a further step fits, and after the first step how long the validation at the end will take."""
        counters = self.counters
        counters.time_is_up = not self._step_fits(budget_s)
        if self.validation.places and counters.patch_s is None and not counters.time_is_up:
            self._validate(1)
            counters.elapsed_s = self.clock() - self._started
            counters.time_is_up = not self._step_fits(budget_s)

    def _step_fits(self, budget_s: float) -> bool:
        return self.counters.elapsed_s + self._longest_step_s <= self._seconds_for_steps(budget_s)

    def _epoch_is_over(self) -> bool:
        if self.config.budget_s is None:
            return self.counters.step >= (self.counters.epoch + 1) * self.config.steps_per_epoch
        return self.progress >= min(1.0, (self.counters.epoch + 1) / BUDGET_EPOCHS)

    def _step(self, image: Tensor, target: Tensor) -> float:
        config = self.config
        rate = config.lr * lr_factor(config, self.progress) * self.plateau.factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            outputs = self.model(image.to(self.device, non_blocking=True))
        loss: Tensor = self.supervised_loss(outputs, target.to(self.device, non_blocking=True))
        if self.model.auxiliary_loss is not None:
            loss = loss + self.model.auxiliary_loss
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip or math.inf)
        value = float(loss.detach())
        self._check_finite(value, float(norm))
        self.scaler.step(self.optimizer)  # skipped in float16 if a gradient is not finite
        self.scaler.update()
        self.model.after_step(self.optimizer)
        self._average()
        return value

    def _check_finite(self, loss: float, gradient_norm: float) -> None:
        """VoxelsegError, before the weights are touched, if the step would spoil them."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self._overflows = 0
            return
        self._overflows += 1
        if self.scaler.is_enabled() and self._overflows < MOST_OVERFLOWS:
            return
        what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradients' norm became {gradient_norm}"
        raise VoxelsegError(
            f"{self.folder}: {what} in step {self.counters.step + 1}; the last good state is kept. Train into another "
            "--out with a lower learning rate (--set train.lr=...) or in float32 (--set train.precision=fp32)."
        )

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        step = self.counters.step
        decay = min(self.config.ema, (1 + step) / (10 + step))  # the first steps are soon forgotten
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)
        for average, current in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            average.copy_(current)
        self.averaged.after_step()

    def _end_epoch(self) -> None:
        """Validate if that is affordable, log, and save the state."""
        counters = self.counters
        validation_loss: float | None = None
        dice: dict[str, float] = {}
        if self._validation_is_due():
            validation_loss, dice = self._validate(self._num_validation_patches())
            defined = [value for value in dice.values() if math.isfinite(value)]
            counters.mean_dice = sum(defined) / len(defined) if defined else None
            if self.config.schedule == "plateau":
                self.plateau.update(validation_loss)
        counters.elapsed_s = self.clock() - self._started
        self.log.write(
            "epoch",
            epoch=counters.epoch,
            step=counters.step,
            elapsed_s=counters.elapsed_s,
            loss=counters.loss_sum / counters.loss_count,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            validation_loss=validation_loss,
            validation_dice=dice or None,
            mean_dice=counters.mean_dice if dice else None,
        )
        counters.loss_sum, counters.loss_count = 0.0, 0
        counters.epoch += 1
        if self.config.budget_s is not None:  # a step longer than a fiftieth of the budget ends several epochs at once
            counters.epoch = max(counters.epoch, int(self.progress * BUDGET_EPOCHS))
        self.save_state()

    def _validation_is_due(self) -> bool:
        """After every epoch; with a budget where it is affordable, and at the end if the budget is kept."""
        counters, budget_s = self.counters, self.config.budget_s
        if not self.validation.places:
            return False
        if budget_s is None:
            return True
        if self.finished:
            ends = counters.elapsed_s + counters.longest_validation_s
            return counters.patch_s is not None and ends <= (1 + LONGEST_VALIDATION) * budget_s
        affordable = counters.validation_s <= VALIDATION_TIME_SHARE * counters.elapsed_s
        return affordable or self.config.schedule == "plateau"

    def _num_validation_patches(self) -> int:
        """How many patches a running validation sees: all, or with a budget as many as its time allows."""
        wanted, patch_s, budget_s = len(self.validation.places), self.counters.patch_s, self.config.budget_s
        if budget_s is None or not patch_s:
            return wanted
        return min(wanted, max(1, int(LONGEST_VALIDATION * budget_s / patch_s)))

    def _validate(self, num_patches: int) -> tuple[float, dict[str, float]]:
        """Loss and Dice on the first patches of the running validation; its time is noted."""
        counters, began = self.counters, self.clock()
        result = self.validation(
            self.result, self.loss, device=self.device, precision=self.precision, num_patches=num_patches
        )
        took = self.clock() - began
        counters.validation_s += took
        counters.patch_s = min(took / num_patches, math.inf if counters.patch_s is None else counters.patch_s)
        expected = counters.patch_s * self._num_validation_patches()
        counters.longest_validation_s = max(counters.longest_validation_s, took, expected)
        return result

    def _report(self, loss: float) -> None:
        if self.on_progress is None:
            return
        counters, share = self.counters, self.progress
        if self.config.budget_s is not None:
            left = max(self.config.budget_s - counters.elapsed_s, 0.0) if share < 1 else 0.0
        else:
            left = counters.elapsed_s * (1 - share) / share
        self.on_progress(Progress(share, counters.step, loss, counters.mean_dice, counters.elapsed_s, left))

    def save_state(self) -> None:
        """Write everything that continuing needs, atomically."""
        began = self.clock()
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau.state(),
            "counters": asdict(self.counters),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        path = self.folder / STATE_FILE
        with atomic_path(path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # what torch makes of a full disk
                raise write_error(path, error) from error
        self._saved = self.clock()
        self.counters.saving_s = max(self.counters.saving_s, self._saved - began)

    def load_state(self) -> bool:
        """Continue from the saved state; False if there is none, CheckpointError if it does not fit.

        An error of memory that ran out is passed on: the state is good.
        """
        path = self.folder / STATE_FILE
        found = path.is_file()
        if found:
            try:
                # Not to the GPU, which would then hold the state twice.
                self._restore(torch.load(path, map_location="cpu", weights_only=True))
            except Exception as error:  # torch.load meets damage with many kinds of exception
                if memory_ran_out(error):
                    raise
                reason = f"{type(error).__name__}: {''.join(str(error).splitlines()[:1])}"
                raise CheckpointError(
                    f"{path}: damaged, or of another model ({reason}). Delete {self.folder} to train this fold again."
                ) from error
        self.log.continue_from(self.counters.epoch)
        return found

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty unless it was saved by a training in float16
            self.scaler.load_state_dict(state["scaler"])
        self.plateau.restore(state["plateau"])
        self.counters = _Counters(**state["counters"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


def training_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Type that the network computes in; ConfigError for one that the device does not have."""
    if config.precision == "fp32":
        return torch.float32
    has = half_precision(device)
    if config.precision == "auto":
        return has or torch.float32
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    if device.type == "cpu":
        # bfloat16: torch 2.13's weight gradients of convolutions are garbage for few slices (docs/log.md)
        raise ConfigError(f"train.precision={config.precision} needs a GPU. On a CPU use fp32.")
    if wanted == torch.bfloat16 and has == torch.float16:
        raise ConfigError("train.precision=bf16: this GPU does not compute in bfloat16. Use fp16 or auto.")
    return wanted


def _optimizer(model: Network, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
        )
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )
    raise AssertionError(config.optimizer)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that a step is never cut in two; the second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)

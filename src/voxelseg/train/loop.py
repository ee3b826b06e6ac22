"""The training loop of one fold: steps, running validation, checkpoints, continuing."""

import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import CheckpointError, VoxelsegError
from voxelseg.files import atomic_path
from voxelseg.geometry import Shape
from voxelseg.losses import DeepSupervisionLoss, DiceCrossEntropy, deep_supervision_weights
from voxelseg.nets import Network
from voxelseg.patches.loader import PatchSource, load_batches
from voxelseg.patches.sampler import draw_place, read_place, sample_generator
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.config import TrainConfig
from voxelseg.train.log import TrainLog
from voxelseg.train.schedule import Plateau, lr_factor

STATE_FILE = "training_state.pt"
BUDGET_EPOCHS = 50
VALIDATION_TIME_SHARE = 0.03
"""Running validation is skipped while it has taken more than this share of the time, except at the end."""


class InterruptedTrainingError(VoxelsegError):
    """The user asked to stop; the state is saved."""


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    share: float
    """Of the whole training that is done, 0 to 1."""
    epoch: int
    step: int
    loss: float
    mean_dice: float | None
    """Of the last running validation."""
    elapsed_s: float


@dataclass
class _Counters:
    step: int = 0
    epoch: int = 0
    elapsed_s: float = 0.0
    validation_s: float = 0.0
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
    ) -> None:
        self.model = model.to(device)
        self.config = config
        self.source = source
        self.labels = labels
        self.folder = folder
        self.device = device
        self.on_progress = on_progress
        self.log = TrainLog(folder / "log.jsonl")
        self.counters = _Counters()
        self.precision = _precision(config, device)
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
        self.validation_batches = list(_validation_batches(validation_cases, source, config.validation_patches))

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
        if self.config.budget_s is not None:
            return min(1.0, self.counters.elapsed_s / self.config.budget_s)
        return min(1.0, self.counters.step / (self.config.epochs * self.config.steps_per_epoch))

    def fit(self) -> None:
        """Train from where the state stands to the end.

        Saves the state after each epoch. Raises InterruptedTrainingError after Ctrl-C, with the state saved, and
        VoxelsegError if the loss is no longer a number.
        """
        counters, config = self.counters, self.config
        workers = config.workers if config.workers is not None else (1 if self.device.type == "cpu" else 8)
        self.log.write(
            "resume" if counters.step else "start", step=counters.step, epoch=counters.epoch, time=time.time()
        )
        session = time.monotonic()
        before = counters.elapsed_s
        batches = load_batches(
            self.source,
            first_sample=counters.step * self.source.batch_size,
            workers=workers,
            pin_memory=self.device.type == "cuda",
        )
        with _stop_requests() as stop:
            losses: list[Tensor] = []
            loss = float("nan")
            longest_step = 0.0
            while not self.finished:
                image, target = next(batches)
                began = time.monotonic()
                losses.append(self._step(image, target))
                loss = float(losses[-1])
                counters.step += 1
                now = time.monotonic()
                counters.elapsed_s = before + now - session
                longest_step = max(longest_step * 0.9, now - began)
                if self._no_time_for(longest_step):
                    counters.elapsed_s = config.budget_s or counters.elapsed_s
                if self._epoch_is_over() or stop.is_set():
                    mean_loss = float(torch.stack(losses).mean())
                    if not np.isfinite(mean_loss) and self.precision != torch.float16:
                        raise VoxelsegError(
                            f"the loss became {mean_loss} in step {counters.step}. Lower the learning rate (--set train.lr) "
                            "or train in float32 (--set train.precision=fp32); the last good state is kept."
                        )
                    if self._epoch_is_over():
                        self._end_epoch(mean_loss)
                        losses = []
                        counters.elapsed_s = max(counters.elapsed_s, before + time.monotonic() - session)
                    self.save_state()
                    if stop.is_set() and not self.finished:
                        self.log.write("stop", step=counters.step, epoch=counters.epoch, time=time.time())
                        raise InterruptedTrainingError(
                            "stopped; the state is saved. The same command continues the training."
                        )
                self._report(loss)
        self.log.write("end", step=counters.step, epoch=counters.epoch, elapsed_s=counters.elapsed_s, time=time.time())

    def _no_time_for(self, step_s: float) -> bool:
        budget = self.config.budget_s
        return budget is not None and self.counters.elapsed_s + step_s > budget

    def _epoch_is_over(self) -> bool:
        if self.config.budget_s is None:
            return self.counters.step >= (self.counters.epoch + 1) * self.config.steps_per_epoch
        return self.progress >= (self.counters.epoch + 1) / BUDGET_EPOCHS or self.finished

    def _step(self, image: Tensor, target: Tensor) -> Tensor:
        config = self.config
        image = image.to(self.device, non_blocking=True)
        target = target.to(self.device, non_blocking=True)
        rate = config.lr * lr_factor(config, self.progress) * self.plateau.factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            outputs = self.model(image)
        loss: Tensor = self.supervised_loss(outputs, target)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        if config.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        step = self.counters.step
        decay = min(self.config.ema, (1 + step) / (10 + step))  # the first steps are soon forgotten
        average = [parameter.data for parameter in self.averaged.parameters()]
        current = [parameter.data for parameter in self.model.parameters()]
        torch._foreach_lerp_(average, current, 1 - decay)

    def _end_epoch(self, loss: float) -> None:
        counters = self.counters
        validation_loss: float | None = None
        dice: dict[str, float] | None = None
        affordable = counters.validation_s <= VALIDATION_TIME_SHARE * counters.elapsed_s
        if self.validation_batches and (affordable or self.finished or self.config.schedule == "plateau"):
            began = time.monotonic()
            validation_loss, dice = self._validate()
            counters.validation_s += time.monotonic() - began
            counters.elapsed_s += time.monotonic() - began
            known = [value for value in dice.values() if np.isfinite(value)]
            counters.mean_dice = float(np.mean(known)) if known else None
            if self.config.schedule == "plateau":
                self.plateau.update(validation_loss)
        self.log.write(
            "epoch",
            epoch=counters.epoch,
            step=counters.step,
            elapsed_s=counters.elapsed_s,
            loss=loss,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            validation_loss=validation_loss,
            validation_dice=dice,
            mean_dice=counters.mean_dice if dice is not None else None,
        )
        counters.epoch += 1
        if self.config.budget_s is not None:
            # A step longer than an epoch's share of the budget ends several at once.
            counters.epoch = max(counters.epoch, int(self.progress * BUDGET_EPOCHS))

    @torch.no_grad()
    def _validate(self) -> tuple[float, dict[str, float]]:
        """Mean loss, and Dice of each class pooled over all validation patches; NaN where a class is absent."""
        network = self.result.eval()
        switched = network.deep_supervision
        network.deep_supervision = False
        counts = torch.zeros(3, len(self.labels.classes))
        losses = []
        try:
            for image, target in self.validation_batches:
                with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
                    logits = network(image.to(self.device))
                losses.append(float(self.loss(logits, target.to(self.device))))
                counts += _overlap(logits.float().cpu(), target, self.labels)
        finally:
            network.deep_supervision = switched
        both, predicted, present = counts
        scores = 2 * both / (predicted + present)
        return float(np.mean(losses)), {name: float(x) for name, x in zip(self.labels.names, scores, strict=True)}

    def _report(self, loss: float) -> None:
        if self.on_progress is not None:
            counters = self.counters
            self.on_progress(
                Progress(self.progress, counters.epoch, counters.step, loss, counters.mean_dice, counters.elapsed_s)
            )

    def save_state(self) -> None:
        """Write everything that continuing needs, atomically."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau.state(),
            "counters": vars(self.counters),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        with atomic_path(self.folder / STATE_FILE) as temporary:
            torch.save(state, temporary)

    def load_state(self) -> bool:
        """Continue from the saved state; False if there is none, CheckpointError if it does not fit."""
        path = self.folder / STATE_FILE
        if not path.is_file():
            return False
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.plateau.restore(state["plateau"])
            self.counters = _Counters(**state["counters"])
            torch.set_rng_state(state["torch_rng"].cpu())
            if state["cuda_rng"] and self.device.type == "cuda":
                torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])
        except Exception as error:  # torch.load meets damage with many kinds of exception
            raise CheckpointError(
                f"{path}: damaged, or of another model ({type(error).__name__}: {str(error).splitlines()[0]}). "
                f"Delete {self.folder} to train this fold again."
            ) from error
        self.log.continue_from(self.counters.epoch)
        return True


def _precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    if config.precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]


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


def _validation_batches(
    cases: Sequence[StoredCase], source: PatchSource, count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same patches each time: one per case in turn, every other one around foreground."""
    patch: Shape = source.patch_size
    for number in range(min(count, max(len(cases), count)) if cases else 0):
        generator = sample_generator(source.seed + 1, number)
        case = cases[number % len(cases)]
        place = draw_place([case], patch, foreground=number % 2 == 0, generator=generator)
        image, target = read_place(place, patch)
        yield torch.from_numpy(image)[None], torch.from_numpy(target)[None]


def _overlap(logits: Tensor, target: Tensor, labels: LabelScheme) -> Tensor:
    """(3, classes): voxels in both, in the prediction, in the reference; ignored voxels left out."""
    known = target >= 0
    if labels.has_regions:
        predicted = (logits > 0).movedim(1, -1)
        present = torch.from_numpy(labels.region_table)[target.clamp(min=0).long()]
    else:
        classes = torch.arange(1, len(labels.classes) + 1)
        predicted = logits.argmax(dim=1)[..., None] == classes
        present = target[..., None] == classes
    predicted, present = predicted & known[..., None], present & known[..., None]
    over = tuple(range(predicted.ndim - 1))
    return torch.stack([(predicted & present).sum(over), predicted.sum(over), present.sum(over)]).float()


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that a step is never cut in two; the second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
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

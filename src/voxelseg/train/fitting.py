"""From the cases of a fold to a trained model: where the training starts, its stages, and what the model records."""

import dataclasses
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.errors import CheckpointError
from voxelseg.files import read_json, write_json
from voxelseg.nets import Network
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.patches.loader import PatchSource
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.budget import epochs_done
from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.loop.segmentation import segmentation_trainer
from voxelseg.train.loop.stage import (
    SMALL_KERNEL_FILE,
    SMALL_KERNEL_STATE_FILE,
    Stage,
    after_growth,
    before_growth,
    share_before_growth,
)
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.loop.trainer import Progress, Trainer
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.run import RUN_FILE, Run
from voxelseg.train.start.initial import unchanged_origin
from voxelseg.train.start.transfer import TransferReport, initial_weights
from voxelseg.train.start.upkern import grow_kernels
from voxelseg.version import __version__

TRANSFER_FILE = "transfer.json"
"""What became of the weights that the training started from."""


@contextmanager
def modes_put_back() -> Iterator[None]:
    """Afterwards the process computes in PyTorch's modes of before, whatever a training in it needed."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    tries_convolutions = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = tries_convolutions


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldTraining:
    """Everything that the training of a fold needs."""

    run: Run
    fold: int
    stored: Mapping[str, StoredCase]
    """Preprocessed cases by id."""
    processes: Processes
    on_progress: Callable[[Progress], None] | None = None
    on_transfer: Callable[[TransferReport], None] | None = None
    """Called in the main process with what became of the weights that the training starts from."""

    @property
    def folder(self) -> Path:
        """RUN/fold_K."""
        return self.run.fold_folder(self.fold)

    def model(self) -> Checkpoint:
        """The model at the end of the training, or of what is left of it."""
        config = self.run.config.train
        if config.grow_kernel is None:
            return self._fitted(Stage(), config, self._first_network, self.on_progress)
        small, large = config.grow_kernel
        before = self._small_kernel_model(small)
        done, share = before.provenance, share_before_growth(config)
        stage = Stage(name=f"kernel {large}", epochs=done["epochs"], steps=done["steps"], elapsed_s=done["training_s"])
        on_progress = _part_of_progress(self.on_progress, stage, before=share, share=1 - share)
        grown = partial(self._grown_network, before)
        return self._fitted(stage, after_growth(config), grown, on_progress, earlier=done["stages"])

    def _small_kernel_model(self, size: int) -> Checkpoint:
        """The model before the kernels grow. Once it is there, the state of its training is needed no more."""
        path = self.folder / SMALL_KERNEL_FILE
        if not self.processes.from_main(path.is_file):
            config = self.run.config.train
            stage = Stage(name=f"kernel {size}", state_file=SMALL_KERNEL_STATE_FILE)
            on_progress = _part_of_progress(self.on_progress, stage, before=0.0, share=share_before_growth(config))
            network = partial(self._first_network, kernel_size=size, state_file=SMALL_KERNEL_STATE_FILE)
            model = self._fitted(stage, before_growth(config), network, on_progress, keep_best=False)
            self.processes.from_main(lambda: save_checkpoint(path, model))
        found = load_checkpoint(path)
        refuse_other_models(found, self.run, self.fold)
        if self.processes.is_main:
            (self.folder / SMALL_KERNEL_STATE_FILE).unlink(missing_ok=True)
        return found

    def _first_network(self, *, kernel_size: int | None = None, state_file: str = STATE_FILE) -> Network:
        """What the training starts from: fresh weights, or those of `transfer.init` unless it has begun already."""
        network, init = self.run.build_model(kernel_size=kernel_size), self.run.config.transfer.init
        if init is not None and not (self.folder / state_file).is_file():
            report = initial_weights(
                network,
                unchanged_origin(init, self.fold, self.run.folder, model=self.run.model),
                self.run.config.transfer,
                plan=self.run.plan,
                labels=self.run.dataset.labels,
                held_out={case: input_sha256(self.stored[case]) for case in self.run.splits[self.fold].validation},
            )
            if self.processes.is_main:
                write_json(self.folder / TRANSFER_FILE, dataclasses.asdict(report))
                if self.on_transfer is not None:
                    self.on_transfer(report)
        return network

    def _grown_network(self, before: Checkpoint) -> Network:
        network = self.run.build_model()
        network.load_state_dict(grow_kernels(before.weights, network.state_dict()))
        return network

    @modes_put_back()
    def _fitted(
        self,
        stage: Stage,
        config: TrainConfig,
        network: Callable[[], Network],
        on_progress: Callable[[Progress], None] | None,
        *,
        earlier: Sequence[Mapping[str, Any]] = (),
        keep_best: bool = True,
    ) -> Checkpoint:
        """The model at the end of a stage of the length in `config`; `earlier` is the record of the stages before."""
        run = self.run
        prepare_torch(config, run.device, run.seed)
        trainer = segmentation_trainer(
            network(),
            config,
            patch_source(run, self.fold, self.stored),
            validation_cases=[self.stored[case] for case in run.splits[self.fold].validation],
            labels=run.dataset.labels,
            folder=self.folder,
            device=run.device,
            transfer=run.config.transfer,
            sparse=run.config.sparse,
            processes=self.processes,
            stage=stage,
            on_progress=on_progress,
            on_best=(lambda trainer: self._keep_best(trainer, earlier)) if keep_best else None,
        )
        trainer.load_state()
        trainer.fit()
        return self._checkpoint(trainer, earlier, epochs=trainer.counters.epoch)

    def _keep_best(self, trainer: Trainer[Network], earlier: Sequence[Mapping[str, Any]]) -> None:
        done = epochs_done(trainer.config, trainer.counters)  # with the one that has just been validated
        save_checkpoint(self.run.best_file(self.fold), self._checkpoint(trainer, earlier, epochs=done))

    def _checkpoint(
        self, trainer: Trainer[Network], earlier: Sequence[Mapping[str, Any]], *, epochs: int
    ) -> Checkpoint:
        run, stage = self.run, trainer.stage
        options: dict[str, Any] = dataclasses.asdict(trainer.result.config)  # type: ignore[call-overload]
        counts = {
            "epochs": epochs,
            "steps": trainer.counters.step,
            "training_s": trainer.counters.elapsed_s,
        }
        return Checkpoint(
            weights=trainer.result.state_dict(),
            model=run.model,
            model_options={key: value for key, value in options.items() if key not in ("in_channels", "num_classes")},
            plan=run.plan,
            labels=run.dataset.labels,
            file_ending=run.dataset.file_ending,
            provenance={
                "voxelseg": __version__,
                "torch": torch.__version__,
                "run": read_json(run.folder / RUN_FILE),
                "fold": self.fold,
                "train_cases_sha256": {case: input_sha256(self.stored[case]) for case in run.splits[self.fold].train},
                "epochs": stage.epochs + counts["epochs"],
                "steps": stage.steps + counts["steps"],
                "training_s": stage.elapsed_s + counts["training_s"],
                "stages": [*earlier, {"name": stage.name, **counts}],
                "transfer": self._transfer_record(),
            },
        )

    def _transfer_record(self) -> dict[str, Any] | None:
        """What a model remembers of the weights that its training started from."""
        if self.run.config.transfer.init is None:
            return None
        report = read_json(self.folder / TRANSFER_FILE)
        kept = ("path", "checksum", "what", "share", "warnings", "seen_sha256", "seen_unlabelled_sha256")
        return {key: report[key] for key in kept if key in report}


def refuse_other_models(found: Checkpoint, run: Run, fold: int) -> None:
    """CheckpointError if a model that is there was not trained by this run; a damaged one is found out on loading."""
    own = (run.model, run.plan.changed(notes=()), run.dataset.labels, fold, run.seed)
    recorded = found.provenance.get("run") or {}
    plan, number = found.plan.changed(notes=()), found.provenance.get("fold")
    if own != (found.model, plan, found.labels, number, recorded.get("seed")):
        raise CheckpointError(f"{found.path}: is not of this run and fold. Delete it to train the fold.")


def patch_source(run: Run, fold: int, stored: Mapping[str, StoredCase]) -> PatchSource:
    """The samples that a fold is trained on."""
    config = run.config.train
    return PatchSource(
        cases=[stored[case] for case in run.splits[fold].train],
        patch_size=run.plan.patch_size,
        batch_size=run.plan.batch_size,
        accumulate=config.accumulate,
        sampling=config.sampling,
        augmentation=run.config.augmentation,
        mirror_axes=run.plan.mirror_axes,
        anisotropic=run.plan.anisotropic,
        seed=run.seed,
        masked_channels=run.plan.masked_channels,
    )


def prepare_torch(config: LoopConfig, device: torch.device, seed: int) -> None:
    """Settings of the whole process: allocator, threads, determinism, seeds of libraries that draw globally."""
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses
    # Some operations have no such form on a GPU: torch then warns and names them.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=device.type == "cuda")
    torch.backends.cudnn.benchmark = not config.deterministic
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from it must be repeatable too


def _part_of_progress(
    show: Callable[[Progress], None] | None, stage: Stage, *, before: float, share: float
) -> Callable[[Progress], None] | None:
    """Shows the progress of a stage, which is `share` of a training after its share `before`, as that of the whole."""
    if show is None:
        return None

    def show_part(part: Progress) -> None:
        done, elapsed_s = before + share * part.share, stage.elapsed_s + part.elapsed_s
        step, left_s = stage.steps + part.step, elapsed_s * (1 - done) / done
        show(dataclasses.replace(part, share=done, step=step, elapsed_s=elapsed_s, left_s=left_s))

    return show_part


def input_sha256(case: StoredCase) -> list[str]:
    """Checksums of the files that a stored case was made from: its images, then its label map."""
    return [str(one["sha256"]) for one in read_json(case.folder / "case.json")["inputs"]]

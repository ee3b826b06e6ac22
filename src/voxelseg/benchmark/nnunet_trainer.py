"""Trains one fold with nnU-Net v2 for a given number of minutes or steps, then predicts its held-out cases.

Runs as a script inside nnU-Net's own environment (see nnunet.py, which starts it and sets nnU-Net's variables); it
needs nothing of voxelseg. The network, loss, optimiser, sampling and augmentation are nnU-Net's own. What differs from
a stock run, and why:

- The polynomial learning rate follows elapsed time, or the steps, so that training is annealed when they are over. The
  stock schedule of 1000 epochs would still be near its peak, so this favours nnU-Net.
- There is no running validation: every minute goes into optimiser steps. The last weights are used, as in a stock run.
- The batch size may be given, and mirroring (augmentation and test time together) can be switched off.

The class is built directly instead of being looked up by name, since nnU-Net's look-up imports every trainer that it
ships, and some of these need timm and torchvision.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # type: ignore[import-not-found]

LOG_EVERY = 50
"""Steps between two lines of the log."""
POLY_EXPONENT = 0.9
"""Exponent of nnU-Net's polynomial schedule."""


class BudgetTrainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer with a budget of time or steps in place of its number of epochs."""

    minutes: float | None = None
    max_steps: int | None = None
    mirroring: bool = True
    chosen_batch_size: int | None = None

    def _set_batch_size_and_oversample(self) -> None:
        super()._set_batch_size_and_oversample()
        if self.chosen_batch_size is not None:
            self.batch_size = self.chosen_batch_size

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        """nnU-Net's own choice; without mirroring when that is switched off, at test time too."""
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.mirroring:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    def run_training(self) -> None:
        """Train until the minutes are over, counted from the first step, or `max_steps` are done."""
        self.on_train_start()
        self.network.train()
        steps, waited, losses = 0, 0.0, []
        start = time.monotonic()
        while (progress := self._progress(time.monotonic() - start, steps)) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - progress) ** POLY_EXPONENT
            asked = time.monotonic()
            batch = next(self.dataloader_train)
            waited += time.monotonic() - asked
            losses.append(float(self.train_step(batch)["loss"]))
            steps += 1
            if steps % LOG_EVERY == 0:
                seconds = time.monotonic() - start
                self.print_to_log_file(
                    f"step {steps}, {seconds / 60:.1f} min, {seconds / steps:.2f} s per step, "
                    f"lr {group['lr']:.5f}, mean loss of the last {LOG_EVERY}: {np.mean(losses[-LOG_EVERY:]):.4f}"
                )
        seconds = time.monotonic() - start
        self.on_train_end()
        record = {
            "steps": steps,
            "training_seconds": seconds,
            "seconds_per_step": seconds / max(steps, 1),
            "seconds_waiting_for_batches": waited,
            "batch_size": self.batch_size,
            "patch_size": [int(size) for size in self.configuration_manager.patch_size],
            "mirroring": self.mirroring,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "torch_threads": torch.get_num_threads(),
            "device": f"cuda ({torch.cuda.get_device_name()})" if self.device.type == "cuda" else "cpu",
        }
        Path(self.output_folder, "training.json").write_text(json.dumps(record, indent=2) + "\n")

    def _progress(self, seconds: float, steps: int) -> float:
        by_steps = steps / self.max_steps if self.max_steps else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_time, by_steps)


def main() -> None:
    """Train and predict as the command line says; nnU-Net writes below its results folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("dataset", help="name of the preprocessed data set, such as Dataset001_Hippocampus")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--minutes", type=float, help="of training")
    parser.add_argument("--steps", type=int, help="of the optimiser, or as many as fit into the minutes")
    parser.add_argument("--batch-size", type=int, help="default: the plan's")
    parser.add_argument("--mirroring", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    if options.minutes is None and options.steps is None:
        parser.error("give --minutes, --steps, or both")

    np.random.seed(options.seed)  # noqa: NPY002 - nnU-Net draws from NumPy's global generator
    torch.manual_seed(options.seed)
    preprocessed = Path(os.environ["nnUNet_preprocessed"], options.dataset)  # noqa: SIM112 - nnU-Net spells it so
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    description = json.loads((preprocessed / "dataset.json").read_text())
    trainer = BudgetTrainer(plans, options.configuration, options.fold, description, torch.device(options.device))
    trainer.minutes = options.minutes
    trainer.max_steps = options.steps
    trainer.mirroring = options.mirroring
    trainer.chosen_batch_size = options.batch_size
    trainer.run_training()
    trainer.perform_actual_validation()


if __name__ == "__main__":
    main()

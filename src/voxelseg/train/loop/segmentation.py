"""A training that segments: Dice and cross entropy of labelled patches, watched by the Dice of held-out ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import ConfigError
from voxelseg.losses import DeepSupervisionLoss, DiceCrossEntropy, deep_supervision_weights
from voxelseg.nets import Network
from voxelseg.patches.loader import Batch, PatchSource
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.trainer import Trainer
from voxelseg.train.loop.validation import RunningValidation
from voxelseg.train.machines.distributed import Processes


class Segmentation:
    """Dice and cross entropy of all outputs of a network, and its own loss if it has one."""

    scores_name = "validation_dice"
    score_name = "mean_dice"

    def __init__(self, network: Network, config: TrainConfig, labels: LabelScheme, processes: Processes) -> None:
        """`network` lies on the device of `processes`, which share each batch."""
        self.parts: Mapping[str, Tensor] = {}
        self._network = network
        loss = loss_of(config, labels, total=processes.total).to(processes.device)
        self.loss: DiceCrossEntropy | DeepSupervisionLoss = loss
        if network.deep_supervision:
            self.loss = DeepSupervisionLoss(loss, deep_supervision_weights(len(network.output_strides)))

    def __call__(self, forward: Callable[[Any], Any], batch: Batch) -> Tensor:
        """Loss of images and targets."""
        image, target = batch
        loss: Tensor = self.loss(forward(image), target)
        self.parts = self.loss.parts
        if self._network.auxiliary_loss is not None:
            self.parts = {**self.parts, "of the network": self._network.auxiliary_loss.detach()}
            loss = loss + self._network.auxiliary_loss
        return loss

    def network(self, model: Network) -> Network:
        """The model itself."""
        return model

    def score(self, scores: Mapping[str, float]) -> float | None:
        """Mean Dice of the classes that have one."""
        defined = [dice for dice in scores.values() if math.isfinite(dice)]
        return sum(defined) / len(defined) if defined else None


def loss_of(config: TrainConfig, labels: LabelScheme, **total: Any) -> DiceCrossEntropy:
    """Loss of the outputs at full resolution; without `total` of batches that this process sees alone."""
    return DiceCrossEntropy(
        region_table=torch.from_numpy(labels.region_table) if labels.has_regions else None,
        dice_weight=config.dice_weight,
        ce_weight=config.ce_weight,
        batch_dice=config.batch_dice,
        dice_background=config.dice_background,
        **total,
    )


def segmentation_trainer(
    network: Network,
    config: TrainConfig,
    source: PatchSource,
    *,
    validation_cases: Sequence[StoredCase],
    labels: LabelScheme,
    device: torch.device,
    processes: Processes | None = None,
    **options: Any,
) -> Trainer[Network]:
    """What trains `network` on patches of `source`; `options` are those of a `Trainer`.

    ConfigError for settings that the device, the network or the data cannot have.
    """
    if not validation_cases and (config.early_stopping or config.schedule == "plateau"):
        raise ConfigError(
            f"{'train.early_stopping' if config.early_stopping else 'train.schedule=plateau'}: this fold holds out "
            "no cases to validate with. Leave it out, or use other folds."
        )
    processes = processes or Processes.alone(device)
    return Trainer(
        network,
        config,
        source,
        objective=Segmentation(network, config, labels, processes),
        validation=RunningValidation(
            validation_cases,
            count=config.validation_patches,
            patch_size=source.patch_size,
            labels=labels,
            loss=loss_of(config, labels).to(device),
            seed=source.seed + 1,
        ),
        device=device,
        processes=processes,
        **options,
    )

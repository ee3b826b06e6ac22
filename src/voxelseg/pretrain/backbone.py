"""The network that is pre-trained: built without labels, trained without heads, saved without what was not trained."""

from typing import Any

import torch
from torch import Tensor

from voxelseg.checkpoint import Checkpoint
from voxelseg.data.dataset import Dataset
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets import Network, create_model, find_network, pretrainable_models
from voxelseg.nets.kernel_masks import restore_masks
from voxelseg.nets.parts import Part, part_parameters, part_tensors
from voxelseg.plan.plan import Plan
from voxelseg.train.config import NetworkConfig
from voxelseg.train.run import build_network


def build_backbone(model: str, dataset: Dataset, config: NetworkConfig, plan: Plan | None, part: Part) -> Network:
    """Network for the channels and classes of `dataset` with the options of `config`; only `part` can be trained.

    Everything else is frozen. Fresh weights come from PyTorch's global generator; without a `plan` the network keeps
    its own levels. ConfigError for a network that cannot be pre-trained, and for what `build_network` refuses.
    """
    check_pretrainable(model)
    if config.model.get("deep_supervision"):
        raise ConfigError("model.deep_supervision: a pre-training has no heads at lower resolutions. Leave it out.")
    network = build_network(model, dataset, config, plan)
    freeze_all_but(network, part)
    return network


def check_pretrainable(model: str) -> None:
    """ConfigError, naming those that can, for a network that cannot be pre-trained."""
    if not find_network(model).pretrainable:
        raise ConfigError(f"{model} cannot be pre-trained. Choose one of {', '.join(pretrainable_models())}.")


def freeze_all_but(network: Network, part: Part) -> None:
    """Let no parameter outside `part` ask for a gradient."""
    trained = part_parameters(network, part)
    for name, parameter in network.named_parameters():
        if name not in trained:
            parameter.requires_grad_(False)


def trained_weights(network: Network, part: Part) -> dict[str, Tensor]:
    """State dict of `network` without what a pre-training of `part` does not train."""
    names = part_tensors(network, part)
    return {name: tensor for name, tensor in network.state_dict().items() if name in names}


def load_backbone(checkpoint: Checkpoint) -> Network:
    """The network of a pre-training in evaluation mode, for its features: heads have fresh weights.

    The weights of what was not trained are drawn from a seed of their own. CheckpointError for a trained model, for
    weights of another network, and if this version has no such network.
    """
    where = checkpoint.path or "model"
    if checkpoint.pretraining is None or checkpoint.pretrained_part is None:
        raise CheckpointError(f"{where}: is a trained model, not what a pre-training left. Name PRE/model.safetensors.")
    options: dict[str, Any] = dict(checkpoint.model_options)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = create_model(
                checkpoint.model,
                in_channels=len(checkpoint.plan.channels),
                num_classes=checkpoint.pretraining["num_classes"],
                **options,
            )
        restore_masks(network, checkpoint.weights)
        missing, unknown = network.load_state_dict(dict(checkpoint.weights), strict=False)
        lacking = part_tensors(network, checkpoint.pretrained_part).intersection(missing)
    except ConfigError as error:
        raise CheckpointError(f"{where}: this voxelseg cannot build its network: {error}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{where}: the weights are not those of a {checkpoint.model} ({error}).") from error
    if lacking or unknown:
        wrong = sorted(lacking) or unknown
        raise CheckpointError(
            f"{where}: the weights are not those of a {checkpoint.model} with these options ({wrong[0]} is "
            f"{'missing' if lacking else 'unknown'}). Name the file that a pre-training wrote."
        )
    return network.eval()

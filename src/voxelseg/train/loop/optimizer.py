"""The optimizer of a training: which parameters are trained, and how fast each of them."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.nets import Network
from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.start.transfer import TransferConfig

ENCODER = "encoder"
"""The word that stands for all parameters of a network's encoder, whatever their names."""
ALL_ELSE = "all else"
"""Name of the group of parameters that no pattern chooses."""


def build_optimizer(network: nn.Module, config: LoopConfig, transfer: TransferConfig) -> torch.optim.Optimizer:
    """Optimizer of the parameters of `network` that are trained; what `transfer.freeze` names is frozen on the way.

    One group of parameters for each pattern of `transfer.lr_factors`, in their order, and one for all else: a group has
    a "name", and an "lr_factor" that the learning rate of each step must be multiplied by. A frozen parameter asks for
    no gradient and is in no group. ConfigError for a pattern that chooses nothing, and if nothing is left to train.
    """
    freeze(network, transfer.freeze)
    groups = _groups(network, transfer.lr_factors)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
        )
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )
    raise AssertionError(config.optimizer)


def freeze(network: nn.Module, patterns: Iterable[str]) -> None:
    """Let the parameters that `patterns` choose ask for no gradient; batch norms among them keep their statistics.

    ConfigError for a pattern that chooses nothing.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        for name in chosen_parameters(network, pattern, key="transfer.freeze"):
            parameters[name].requires_grad_(False)


def chosen_parameters(network: nn.Module, pattern: str, *, key: str) -> list[str]:
    """Names of the parameters that `pattern` chooses: a glob over their names, or the word "encoder".

    ConfigError, which names the setting `key` and the nearest names, if there are none.
    """
    parameters = dict(network.named_parameters())
    if pattern == ENCODER:
        assert isinstance(network, Network), "only a network says what encodes"
        encoding = {id(parameter) for parameter in network.encoder_parameters()}
        return [name for name, parameter in parameters.items() if id(parameter) in encoding]
    chosen = [name for name in parameters if fnmatchcase(name, pattern)]
    if not chosen:
        parts = dict.fromkeys(f"{name.split('.')[0]}.*" for name in parameters)
        near = did_you_mean(pattern, [*parts, *parameters, ENCODER])
        raise ConfigError(
            f"{key}: {pattern!r} is no parameter of this {type(network).__name__}{near}. Patterns choose names, as "
            f'{", ".join(parts)}; the word "encoder" chooses the whole encoder.'
        )
    return chosen


def _groups(network: nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Groups of an optimizer; of several patterns that choose a parameter the last one counts."""
    owner = {name: ALL_ELSE for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not owner:
        raise ConfigError("transfer.freeze: no parameter is left to train. Freeze fewer.")
    for pattern in factors:
        chosen = chosen_parameters(network, pattern, key="transfer.lr_factors")
        owner.update({name: pattern for name in chosen if name in owner})
    idle = [pattern for pattern in factors if pattern not in owner.values()]
    if idle:
        raise ConfigError(
            f"transfer.lr_factors: {idle[0]!r} has no effect, since its parameters are frozen or have the factor of a "
            "later pattern. Leave it out, or put it last."
        )
    parameters = dict(network.named_parameters())
    return [
        {
            "params": [parameters[name] for name in owner if owner[name] == group],
            "name": group,
            "lr_factor": factors.get(group, 1.0),
        }
        for group in (*factors, ALL_ELSE)
        if group in owner.values()
    ]

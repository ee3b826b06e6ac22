"""Segmentation networks; usable alone, needs torch only (some baselines: MONAI)."""

import dataclasses
from typing import Any

import torch

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.nets import mednext, unet
from voxelseg.nets.network import Network, NetworkEntry

__all__ = ["NETWORKS", "Network", "NetworkEntry", "create_model", "describe_models", "find_network", "list_models"]


NETWORKS: dict[str, NetworkEntry] = {
    **mednext.ENTRIES,
    **unet.ENTRIES,
}


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return list(NETWORKS)


def find_network(name: str) -> NetworkEntry:
    """The entry of that name; ConfigError, with the closest match, for an unknown one."""
    if name not in NETWORKS:
        raise ConfigError(f"unknown model {name!r}{did_you_mean(name, NETWORKS)}. Known: {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def create_model(name: str, *, in_channels: int, num_classes: int, **options: Any) -> Network:
    """Network of that name with fresh weights; `options` are fields of its config, as in kernel_size=5.

    It has `.config`, `.divisor`, `.deep_supervision` and `.output_strides`. A network is rebuilt from a saved config by
    `create_model(name, **dataclasses.asdict(config))`. ConfigError, with the closest match, for an unknown name or
    option.
    """
    entry = find_network(name)
    known = [field.name for field in dataclasses.fields(entry.config)]
    unknown = [option for option in options if option not in known]
    if unknown:
        hints = ", ".join(f"{option!r}{did_you_mean(option, known)}" for option in unknown)
        raise ConfigError(f"{name} has no option {hints}. Known: {', '.join(known)}.")
    config = entry.config(in_channels=in_channels, num_classes=num_classes, **{**entry.options, **options})
    model: Network = entry.network(config)
    return model


def describe_models() -> list[dict[str, Any]]:
    """Name, parameters, divisor, source and summary of every network, for 1 input channel and 14 classes.

    Nothing is computed: the networks are built without memory for their weights. Deep-supervision heads not counted.
    """
    described: list[dict[str, Any]] = []
    for name, entry in NETWORKS.items():
        with torch.device("meta"):
            model = create_model(name, in_channels=1, num_classes=14)
        described.append(
            {
                "name": name,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "divisor": list(model.divisor),
                "source": entry.source,
                "summary": entry.summary,
            }
        )
    return described

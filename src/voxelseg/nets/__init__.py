"""Segmentation networks; usable alone, needs torch only."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.nets import mednext, unet
from voxelseg.nets.network import Network

__all__ = ["NETWORKS", "Network", "NetworkEntry", "create_model", "describe_models", "find_network", "list_models"]


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """A named size of a network."""

    network: Any
    """Class, built from its config alone."""
    config: Any
    """Frozen dataclass with all options."""
    options: dict[str, Any]
    """Options in which this size differs from the config's defaults."""
    source: str
    """Publication and code that the network follows."""
    summary: str
    """One line for people who choose."""


_MEDNEXT_SOURCE = "Roy et al., MICCAI 2023, arXiv:2303.09975; github.com/MIC-DKFZ/MedNeXt at 0b78ed8"
_UNET_SOURCE = "Isensee et al., Nature Methods 2021; PlainConvUNet of nnU-Net v2"

_MEDNEXT_SUMMARIES = {
    "mednext_xs": "width 16, few blocks: ours, for demos and training on a CPU",
    "mednext_s": "MedNeXt-S of the paper, the smallest published size",
    "mednext_b": "MedNeXt-B: larger expansion ratios",
    "mednext_m": "MedNeXt-M: expansion ratios of B, more blocks",
    "mednext_l": "MedNeXt-L: most blocks and largest expansion ratios, most accurate in the paper",
}
_UNET_SUMMARIES = {
    "unet": "plain 3D U-Net, width 32 to 320, five levels: the baseline",
    "unet_s": "plain 3D U-Net, width 16, four levels: for training on a CPU",
}

NETWORKS: dict[str, NetworkEntry] = {
    **{
        name: NetworkEntry(
            network=mednext.MedNeXt,
            config=mednext.MedNeXtConfig,
            options=options,
            source=_MEDNEXT_SOURCE,
            summary=_MEDNEXT_SUMMARIES[name],
        )
        for name, options in mednext.SIZES.items()
    },
    **{
        name: NetworkEntry(
            network=unet.UNet,
            config=unet.UNetConfig,
            options=options,
            source=_UNET_SOURCE,
            summary=_UNET_SUMMARIES[name],
        )
        for name, options in unet.SIZES.items()
    },
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

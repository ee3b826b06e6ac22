"""Segmentation networks; usable alone, needs torch only (some baselines: MONAI)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from voxelseg.errors import ConfigError, DataError, did_you_mean
from voxelseg.nets import baselines, e2enet, logonet, mednext, resenc_unet, ulkanet, unet, uxnet
from voxelseg.nets.complexity import count
from voxelseg.nets.network import Network, NetworkEntry

__all__ = [
    "NETWORKS",
    "Network",
    "NetworkEntry",
    "create_model",
    "describe_models",
    "find_network",
    "list_models",
    "pretrainable_models",
]


NETWORKS: dict[str, NetworkEntry] = {
    **mednext.ENTRIES,
    **uxnet.ENTRIES,
    **e2enet.ENTRIES,
    **ulkanet.ENTRIES,
    **logonet.ENTRIES,
    **unet.ENTRIES,
    **resenc_unet.ENTRIES,
    **baselines.ENTRIES,
}


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return list(NETWORKS)


def pretrainable_models() -> list[str]:
    """Names of the networks that can be pre-trained."""
    return [name for name, entry in NETWORKS.items() if entry.pretrainable]


def find_network(name: str) -> NetworkEntry:
    """The entry of that name; ConfigError, with the closest match, for an unknown one."""
    if name not in NETWORKS:
        raise ConfigError(f"unknown model {name!r}{did_you_mean(name, NETWORKS)}. Known: {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def create_model(name: str, *, in_channels: int = 1, num_classes: int = 14, **options: Any) -> Network:
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


def describe_models(
    size: Sequence[int] = (96, 96, 96), *, progress: Callable[[int, str], None] | None = None
) -> list[dict[str, Any]]:
    """What every network is and what a patch of `size` voxels (D, H, W) costs it, for 1 input channel and 14 classes.

    Networks of slices take the last two axes; a network that cannot take the size gets the next larger one that it can,
    and `size` says so. Nothing is computed: the networks are built without memory for their weights, and without the
    extra heads of deep supervision. Networks whose library is not installed are left out. `progress` is called with the
    number of networks that are done and the next one's name. DataError for sizes below one voxel.
    """
    if len(size) != 3 or any(voxels < 1 for voxels in size):
        raise DataError(f"patch of {tuple(size)} voxels: expected one voxel or more along each of D, H, W.")
    described = []
    for done, name in enumerate(NETWORKS):
        if progress is not None:
            progress(done, name)
        described.append(_described(name, size))
    return [one for one in described if one is not None]


def _described(name: str, size: Sequence[int]) -> dict[str, Any] | None:
    try:
        model = _without_memory(name)
    except ConfigError as error:
        if isinstance(error.__cause__, ImportError):
            return None
        raise
    patch = _next_size(size[-len(model.divisor) :], model.divisor)
    if model.image_size not in (None, patch):
        model = _without_memory(name, image_size=patch)
    cost = count(model, patch)
    return {
        "name": name,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "training_bytes": cost.training_bytes,
        "prediction_bytes": cost.prediction_bytes,
        "size": list(patch),
        "divisor": list(model.divisor),
        "source": NETWORKS[name].source,
        "summary": NETWORKS[name].summary,
    }


def _without_memory(name: str, **options: Any) -> Network:
    with torch.device("meta"):
        return create_model(name, in_channels=1, num_classes=14, **options)


def _next_size(size: Sequence[int], divisor: tuple[int, ...]) -> tuple[int, ...]:
    """Smallest size of at least `size` in multiples of `divisor`, and of more than one of them."""
    patch = [-(-voxels // step) * step for voxels, step in zip(size, divisor, strict=True)]
    if patch == list(divisor):
        patch[-1] *= 2  # norms need more than one voxel at the lowest resolution
    return tuple(patch)

"""Which layers of a network are sparse, and how their active kernels are to move: settings, and their application.

Any network can have sparse layers: see `voxelseg.nets.kernel_masks`. What moves, and when: see `kernel_moves` and
`topology`.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.nets import Network
from voxelseg.nets.kernel_masks import add_masks, sparse_weights
from voxelseg.train.start.patterns import Patterns


class SparseConfig(BaseModel):
    """Layers of which only some kernels are active, and how these move; the defaults are E2ENet's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the kernels that are inactive in each sparse layer. None: the network's own option decides."""
    layers: Patterns = ()
    """Convolutions to make sparse, as patterns of names such as "decoder*", in networks that name none themselves."""
    growth: Literal["random", "gradient"] = "random"
    """Which inactive kernels become active: drawn ones, or those with the largest gradients."""
    freeze_topology: bool = False
    """Whether the active kernels stay as they are: static masks, or those of the network that training starts from."""
    update_every: Annotated[int, Field(gt=0)] | None = None
    """Steps between two moves. None: 0.48 % of the training, 1200 of 250,000 steps as published, and at least 100."""
    initial_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the active kernels of a layer that move at the beginning; it falls as half a cosine."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.001
    """The same at the end: the authors' code; 0 in the paper."""
    mask_gradients: bool = False
    """Whether gradients are clipped after those of inactive kernels are left out; in the authors' code they count."""

    @model_validator(mode="after")
    def _possible(self) -> "SparseConfig":
        if self.final_rate > self.initial_rate:
            raise ValueError(f"final_rate {self.final_rate:g} is above initial_rate {self.initial_rate:g}")
        if self.freeze_topology and (idle := self.set_keys() & HOW_KERNELS_MOVE):
            raise ValueError(f"{', '.join(sorted(idle))}: nothing moves with freeze_topology. Leave one out")
        return self

    def check_length(self, num_steps: int) -> None:
        """ValueError if no kernel would ever move in a training of so many steps."""
        if self.update_every is not None and self.update_every >= num_steps:
            raise ValueError(
                f"sparse.update_every={self.update_every} is not reached in {num_steps} steps, so no kernel would ever "
                "move. Lower it, leave it out, or fix the masks with sparse.freeze_topology=true instead"
            )

    def set_keys(self) -> set[str]:
        """Keys whose values are not the defaults."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}


HOW_KERNELS_MOVE = {"growth", "update_every", "initial_rate", "final_rate"}
"""Keys that say nothing where kernels stay."""


def sparsity_option(config: SparseConfig, model: Mapping[str, Any]) -> dict[str, Any]:
    """The option of a network that has one for its sparsity, if `config` sets it; `model` are the user's options."""
    if config.sparsity is None:
        return {}
    if model.get("sparsity", config.sparsity) != config.sparsity:
        raise ConfigError(
            f"sparse.sparsity={config.sparsity} and model.sparsity={model['sparsity']} are the same setting. Give one."
        )
    return {"sparsity": config.sparsity}


def make_sparse(network: Network, config: SparseConfig) -> None:
    """Give `network` the masks that `config` asks for, drawn from PyTorch's global generator.

    ConfigError if a key can have no effect: for a network without sparse layers, or for one that names its own.
    """
    own, name = network.sparse_layers(), type(network).__name__
    if config.layers and own:
        raise ConfigError(f"sparse.layers: {name} names its sparse layers itself. Leave it out.")
    if config.layers:
        if not config.sparsity:
            raise ConfigError("sparse.layers needs the share of inactive kernels, as in sparse.sparsity=0.8.")
        add_masks(network, chosen_layers(network, config.layers), config.sparsity)
    elif idle := _idle_keys(network, config):
        keys = ", ".join(f"sparse.{key}" for key in sorted(idle))
        raise ConfigError(
            f"{keys}: this {name} has no sparse layers, so nothing would change. Name some of its convolutions "
            "with sparse.layers and their sparse.sparsity, choose a network that has them, such as e2enet, or leave "
            "it out."
        )


def _idle_keys(network: Network, config: SparseConfig) -> set[str]:
    """Keys that change nothing, since all kernels of `network` are active."""
    if network.sparse_layers():
        return set()
    has_option = bool(sparse_weights(network))  # it is dense by that very option
    return config.set_keys() - ({"sparsity"} if has_option else set())


def chosen_layers(network: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Names of the convolutions that match a pattern; ConfigError for a pattern that none matches."""
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    names = [name for name, layer in network.named_modules() if isinstance(layer, kinds)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"sparse.layers: no convolution is called {pattern!r}{did_you_mean(pattern, names)}. "
                f"There are {', '.join(names)}."
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]

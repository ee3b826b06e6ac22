"""Which tensors a part of a network consists of: asked of the network itself, by following its graph backwards."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from voxelseg.errors import ConfigError
from voxelseg.nets.network import Network

Part = Literal["all", "encoder"]
"""Of a network: "all" that its `features` are made of, everything but its heads, or what `encode` is made of."""
PARTS: tuple[Part, ...] = get_args(Part)


def part_parameters(network: Network, part: Part) -> set[str]:
    """Names of the parameters that `features` or `encode` depend on, whether they are frozen or not.

    No others get a gradient from them. Nothing is computed. ConfigError for a network that cannot be pre-trained.
    """
    network_class: Any = type(network)
    return set(_traced(network_class, network.config, part))


def part_tensors(network: Network, part: Part) -> set[str]:
    """Names in the state dict of `network`: those parameters, and the statistics and masks of their layers.

    ConfigError for a network that cannot be pre-trained.
    """
    parameters = part_parameters(network, part)
    layers = {_layer(name) for name in parameters}
    of_layers = {name for name in network.state_dict() if _layer(name) in layers}
    return of_layers - ({name for name, _ in network.named_parameters()} - parameters)


def encoded_channels(network: Network) -> int:
    """Channels of all that `encode` returns together. Nothing is computed; the same errors."""
    return sum(deepest.shape[1] for deepest in _outputs(_without_memory(type(network), network.config), "encoder"))


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0]


@lru_cache(maxsize=16)  # for LoGoNet it takes seconds, and is asked for with each best weights that are saved
def _traced(network_class: Any, config: Any, part: Part) -> frozenset[str]:
    twin = _without_memory(network_class, config)
    reached = {id(parameter) for parameter in _reached(_outputs(twin, part))}
    return frozenset(name for name, parameter in twin.named_parameters() if id(parameter) in reached)


def _without_memory(network_class: Any, config: Any) -> Network:
    """A network of this form on the meta device, no parameter of which is frozen by a user."""
    with torch.device("meta"):
        twin: Network = network_class(config)
    return twin.eval()


def _outputs(twin: Network, part: Part) -> list[Tensor]:
    *sides, last = twin.divisor
    size = twin.image_size or (*sides, 2 * last)  # norms need more than one voxel at the lowest resolution
    with torch.enable_grad():
        config: Any = twin.config
        x = torch.empty(1, config.in_channels, *size, device="meta")
        if part == "all":
            return [twin.features(x)]
        if part == "encoder":
            return twin.encode(x)
    raise ConfigError(f"part {part!r}: expected one of {', '.join(PARTS)}.")


def _reached(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """The parameters that `outputs` depend on."""
    waiting: list[Any] = [output.grad_fn for output in outputs]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):  # where the gradient of a parameter is accumulated
            yield node.variable
        found = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= found
        waiting += found

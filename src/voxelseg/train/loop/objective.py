"""What a training needs to know of its purpose: what a step minimises, and by what weights are judged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from voxelseg.nets import Network

Model = TypeVar("Model", bound=nn.Module)
ModelIn = TypeVar("ModelIn", bound=nn.Module, contravariant=True)


class Objective(Protocol[ModelIn]):
    """What a step minimises for a batch, and what the log calls the scores of a running validation."""

    parts: Mapping[str, Tensor]
    """Parts of the loss of the last batch, as scalars."""
    scores_name: str
    """In the log: the scores of a running validation, by name."""
    score_name: str
    """In the log: the one score that says which weights are best."""

    def __call__(self, forward: Callable[[Any], Any], batch: Any) -> Tensor:
        """Loss of `batch`, which lies on the device, a float32 scalar; sets `parts`.

        `forward` calls the model in the precision of the training; with several processes it also sees to it that their
        gradients are exchanged, so the model is called by nothing else.
        """
        ...

    def network(self, model: ModelIn) -> Network:
        """The network in `model`: the one whose sparse layers are kept."""
        ...

    def score(self, scores: Mapping[str, float]) -> float | None:
        """The one score of all `scores` of a running validation: more is better; None if there is none."""
        ...


class Validation(Protocol[ModelIn]):
    """Loss and scores of a model on a few fixed samples, to watch a training by."""

    @property
    def places(self) -> Sequence[Any]:
        """Where the samples lie, one entry for each or for each batch of them."""
        ...

    def __call__(
        self, model: ModelIn, /, *, device: torch.device, precision: torch.dtype, num_patches: int | None
    ) -> tuple[float, dict[str, float]]:
        """Mean loss, and scores by name, NaN where one is not defined; of the first `num_patches` places only.

        Leaves `model` in evaluation mode. Draws nothing from global generators.
        """
        ...

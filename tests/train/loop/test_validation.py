import math

import numpy as np
import pytest
import torch
from torch import nn

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.losses import DiceCrossEntropy
from voxelseg.nets import Network
from voxelseg.train.loop.validation import RunningValidation, _overlap

CPU = torch.device("cpu")


class Constant(Network):
    """Says one class everywhere."""

    def __init__(self, num_classes: int, answer: int) -> None:
        super().__init__([(1, 1, 1), (2, 2, 2)], divisor=(1, 1, 1), in_channels=1)
        self.answer = nn.Parameter(nn.functional.one_hot(torch.tensor(answer), num_classes).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        full = 10 * self.answer[None, :, None, None, None].expand(-1, -1, *x.shape[2:])
        return [full, full[..., ::2, ::2, ::2]] if self.deep_supervision else full


def validation(prepared, count=3, seed=1):
    cases = list(prepared.stored.values())[:2]
    return RunningValidation(
        cases, count=count, patch_size=(16, 16, 8), labels=prepared.dataset.labels, loss=DiceCrossEntropy(), seed=seed
    )


def test_places_are_the_same_each_time_and_take_the_cases_in_turn(prepared):
    places = validation(prepared, count=4).places
    assert [place.case.id for place in places] == ["tiny_0", "tiny_1", "tiny_0", "tiny_1"]
    assert places == validation(prepared, count=4).places
    assert places != validation(prepared, count=4, seed=2).places


def test_no_patches_where_none_are_asked_for_or_no_case_is_held_out(prepared):
    assert validation(prepared, count=0).places == []
    empty = RunningValidation(
        [], count=3, patch_size=(8, 8, 8), labels=prepared.dataset.labels, loss=DiceCrossEntropy(), seed=0
    )
    assert empty.places == []


def test_dice_of_a_network_that_says_ball_everywhere_follows_from_the_ball_s_share(prepared):
    running = validation(prepared)
    network = Constant(3, answer=1)
    loss, dice = running(network, device=CPU)
    targets = torch.cat([target for _, target in running._patches()])
    ball = int((targets == 1).sum())
    assert dice["ball"] == pytest.approx(2 * ball / (targets.numel() + ball))
    assert dice["rod"] == 0.0  # present, never found
    assert math.isfinite(loss)


def test_the_network_is_left_with_its_deep_supervision(prepared):
    network = Constant(3, answer=0)
    validation(prepared)(network, device=CPU)
    assert network.deep_supervision
    assert not network.training


def test_a_class_that_is_neither_there_nor_found_has_no_dice():
    labels = LabelScheme((LabelClass("a", (1,), 1), LabelClass("b", (2,), 2)))
    target = torch.tensor([[[[0, 1, -1]]]])
    logits = torch.tensor([[0.0, 9, 9], [9, 0, 0], [0, 0, 0]]).reshape(1, 3, 1, 1, 3)  # says a, background, background
    both, predicted, present = _overlap(logits, target, labels)
    assert (both.tolist(), predicted.tolist(), present.tolist()) == ([0, 0], [1, 0], [1, 0])


def test_overlapping_regions_are_counted_each_for_itself():
    labels = LabelScheme((LabelClass("whole", (1, 2), 1), LabelClass("core", (2,), 2)))
    target = torch.from_numpy(labels.encode(np.array([[[[0, 1, 2]]]])))
    logits = torch.tensor([[-1.0, 1, 1], [-1, 1, -1]]).reshape(1, 2, 1, 1, 3)
    both, predicted, present = _overlap(logits, target, labels)
    assert (both.tolist(), predicted.tolist(), present.tolist()) == ([2, 0], [2, 1], [2, 1])

from math import exp, log

import pytest
import torch
from torch import Tensor

from voxelseg.errors import ConfigError
from voxelseg.losses import DeepSupervisionLoss, DiceCrossEntropy, deep_supervision_weights


def random_case(*, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 3, 4, 5, generator=generator)
    return logits, torch.randint(0, classes, (2, 3, 4, 5), generator=generator).short()


def test_two_voxels_worked_out_by_hand():
    # Probabilities of class 1 are 0.8 and 0.4, the target is 1 and 0.
    logits = torch.tensor([[0.0, 0.0], [log(4), log(2 / 3)]]).reshape(1, 2, 1, 1, 2)
    target = torch.tensor([1, 0]).reshape(1, 1, 1, 2)
    cross_entropy = -(log(0.8) + log(0.6)) / 2
    dice = (2 * 0.8 + 1e-5) / (0.8 + 0.4 + 1 + 1e-5)
    assert DiceCrossEntropy()(logits, target).item() == pytest.approx(cross_entropy - dice, abs=1e-6)
    assert DiceCrossEntropy(dice_weight=0)(logits, target).item() == pytest.approx(cross_entropy, abs=1e-6)
    assert DiceCrossEntropy(ce_weight=0)(logits, target).item() == pytest.approx(-dice, abs=1e-6)
    weighted = DiceCrossEntropy(dice_weight=0.5, ce_weight=2)(logits, target).item()
    assert weighted == pytest.approx(2 * cross_entropy - 0.5 * dice, abs=1e-6)


def test_regions_worked_out_by_hand():
    # Target values 0, 1, 2: nothing, whole only, whole and core. Probabilities: whole 0.5 everywhere, core e/(1+e).
    table = torch.tensor([[False, False], [True, False], [True, True]])
    logits = torch.tensor([[0.0] * 3, [1.0] * 3]).reshape(1, 2, 1, 1, 3)
    target = torch.tensor([0, 1, 2]).reshape(1, 1, 1, 3)
    p = exp(1) / (1 + exp(1))
    cross_entropy = (3 * log(2) + (-2 * log(1 - p) - log(p))) / 6
    dice = ((2 * 1.0) / (1.5 + 2) + (2 * p) / (3 * p + 1)) / 2
    loss = DiceCrossEntropy(region_table=table, smooth=0.0)(logits, target).item()
    assert loss == pytest.approx(cross_entropy - dice, abs=1e-6)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_agrees_with_monai(batch_dice: bool, background: bool):
    losses = pytest.importorskip("monai.losses")
    logits, target = random_case()
    monai = losses.DiceCELoss(
        include_background=background,
        to_onehot_y=True,
        softmax=True,
        batch=batch_dice,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )
    ours = DiceCrossEntropy(batch_dice=batch_dice, dice_background=background)(logits, target)
    assert ours.item() + 1 == pytest.approx(monai(logits, target[:, None].long()).item(), abs=1e-6)


def test_regions_agree_with_monai():
    losses = pytest.importorskip("monai.losses")
    logits, target = random_case(classes=2)
    table = torch.tensor([[False, False], [True, True]])
    monai_dice = losses.DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)
    wanted = target[:, None].float().expand(-1, 2, -1, -1, -1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted) + monai_dice(logits, wanted) - 1
    assert DiceCrossEntropy(region_table=table)(logits, target).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_count_for_nothing(regions: bool):
    table = torch.tensor([[False] * 4, [True, False, False, True], [True] * 4, [False, True, False, False]])
    loss = DiceCrossEntropy(region_table=table if regions else None, batch_dice=True)
    logits, target = random_case()
    logits.requires_grad_()
    target[:, :, :, 2:] = -1
    value = loss(logits, target)
    value.backward()
    assert (logits.grad[..., 2:] == 0).all()
    assert (logits.grad[..., :2] != 0).all()
    assert value.item() == pytest.approx(loss(logits[..., :2], target[..., :2]).item(), abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_a_target_that_is_ignored_altogether_gives_a_zero_gradient(regions: bool):
    logits, target = random_case()
    logits.requires_grad_()
    loss = DiceCrossEntropy(region_table=torch.eye(4, dtype=torch.bool) if regions else None)
    value = loss(logits, torch.full_like(target, -1))
    value.backward()
    assert value.item() == -1  # every class is missing from target and prediction: Dice 1
    assert (logits.grad == 0).all()


def test_gradients_stay_finite_without_foreground_and_with_huge_logits():
    logits = torch.full((1, 3, 2, 3, 4), -1000.0)
    logits[:, 0] = 1000.0
    logits.requires_grad_()
    value = DiceCrossEntropy()(logits, torch.zeros(1, 2, 3, 4, dtype=torch.int16))
    value.backward()
    assert value.item() == pytest.approx(-1)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype):
    logits, target = random_case()
    half = logits.to(dtype)
    value = DiceCrossEntropy()(half, target)
    assert value.dtype == torch.float32
    assert value.item() == DiceCrossEntropy()(half.float(), target).item()


def test_the_dice_of_a_class_of_a_million_voxels_is_exact():
    logits = torch.zeros(1, 2, 64, 128, 128)
    logits[:, 1] = log(0.93 / 0.07)
    target = torch.ones(1, 64, 128, 128, dtype=torch.int16)
    # All voxels are of the class, each with probability 0.93: 2 * 0.93 / (0.93 + 1).
    loss = DiceCrossEntropy(ce_weight=0.0)(logits, target)
    assert -float(loss) == pytest.approx(1.86 / 1.93, abs=1e-6)


def test_batch_dice_pools_patches_before_the_ratio():
    # The class fills one of two patches. Per patch: Dice 1 and 1/(4 p) small; pooled: one ratio.
    logits = torch.zeros(2, 2, 1, 2, 2)
    target = torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)]).short()
    per_patch = DiceCrossEntropy(ce_weight=0, smooth=0.0)(logits, target).item()
    pooled = DiceCrossEntropy(ce_weight=0, smooth=0.0, batch_dice=True)(logits, target).item()
    assert per_patch == pytest.approx(-(2 * 2 / (2 + 4) + 0) / 2)
    assert pooled == pytest.approx(-2 * 2 / (2 + 2 + 4))


def test_gradient_agrees_with_finite_differences():
    logits, target = random_case(classes=3)
    logits = logits[:1, :, :2, :2, :2].double().requires_grad_()
    target = target[:1, :2, :2, :2].clamp(max=2)
    target[0, 0, 0, 0] = -1
    value = DiceCrossEntropy()(logits, target)
    value.backward()
    for index in ((0, 1, 0, 1, 1), (0, 2, 1, 0, 1), (0, 0, 0, 0, 0)):
        step = torch.zeros_like(logits)
        step[index] = 1e-2
        with torch.no_grad():
            slope = (DiceCrossEntropy()(logits + step, target) - DiceCrossEntropy()(logits - step, target)) / 2e-2
        assert logits.grad[index].item() == pytest.approx(slope.item(), abs=2e-4)


@pytest.mark.parametrize("bad", [{"dice_weight": -1}, {"dice_weight": 0, "ce_weight": 0}, {"smooth": -1e-5}])
def test_impossible_weights_are_errors(bad: dict[str, float]):
    with pytest.raises(ConfigError, match="none may be negative"):
        DiceCrossEntropy(**bad)


def test_deep_supervision_weights_halve_and_sum_to_1():
    assert deep_supervision_weights(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert deep_supervision_weights(1) == [1]


def test_deep_supervision_is_the_weighted_sum_over_nearest_targets():
    logits, target = random_case()
    small = torch.randn(2, 4, 3, 2, 3)
    # nearest-exact from 4 to 2 takes voxels 1 and 3, from 5 to 3 voxels 0, 2 and 4
    nearest = target[:, :, [1, 3]][..., [0, 2, 4]]
    loss = DiceCrossEntropy()
    value = DeepSupervisionLoss(loss, [0.75, 0.25])([logits, small], target)
    assert value.item() == pytest.approx(0.75 * loss(logits, target).item() + 0.25 * loss(small, nearest).item())


def test_an_output_of_weight_0_gets_no_gradient():
    logits, target = random_case()
    small = torch.randn(2, 4, 3, 2, 3, requires_grad=True)
    logits.requires_grad_()
    DeepSupervisionLoss(DiceCrossEntropy(), [1.0, 0.0])([logits, small], target).backward()
    assert small.grad is None


def test_ignore_survives_the_resizing_of_targets():
    logits = [torch.randn(1, 2, 2, 4, 4), torch.randn(1, 2, 1, 2, 2, requires_grad=True)]
    target = torch.ones(1, 2, 4, 4, dtype=torch.int16)
    target[:, :, :, 2:] = -1
    DeepSupervisionLoss(DiceCrossEntropy(), [0.5, 0.5])(logits, target).backward()
    assert (logits[1].grad[..., 1] == 0).all()
    assert (logits[1].grad[..., 0] != 0).all()


def test_regions_have_no_background_that_could_count():
    with pytest.raises(ConfigError, match="dice_background: regions may overlap"):
        DiceCrossEntropy(region_table=torch.eye(3, dtype=torch.bool), dice_background=True)


def test_the_parts_of_the_loss_are_known_and_those_of_the_highest_resolution():
    logits, target = random_case()
    loss = DiceCrossEntropy(ce_weight=2.0, dice_weight=0.5)
    value = loss(logits, target).item()
    parts = {name: float(part) for name, part in loss.parts.items()}
    assert value == pytest.approx(2 * parts["cross entropy"] - 0.5 * parts["Dice"], abs=1e-6)
    supervised = DeepSupervisionLoss(loss, [0.7, 0.3])
    supervised([logits, torch.zeros_like(logits)[..., ::2]], target)
    assert {name: float(part) for name, part in supervised.parts.items()} == parts
    only_dice = DiceCrossEntropy(dice_weight=0)
    only_dice(logits, target)
    assert list(only_dice.parts) == ["cross entropy"]

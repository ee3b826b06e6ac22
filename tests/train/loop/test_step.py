import math

import pytest
import torch
from torch import nn
from watching import events, same, scale_losses, weights_of

from voxelseg.errors import ConfigError, VoxelsegError
from voxelseg.nets import create_model
from voxelseg.nets.kernel_masks import sparse_weights
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.loop.step import moved
from voxelseg.train.loop.trainer import MOST_OVERFLOWS
from voxelseg.train.sparse.settings import SparseConfig


def test_lower_resolutions_are_trained_only_with_deep_supervision(prepared, tmp_path):
    def moved_heads(deep_supervision):
        unet = prepared.unet()
        unet.deep_supervision = deep_supervision
        before = [head.weight.detach().clone() for head in unet.heads]
        prepared.trainer(tmp_path, epochs=1, steps_per_epoch=1, unet=unet).fit()
        return [not torch.equal(head.weight, first) for head, first in zip(unet.heads, before, strict=True)]

    assert moved_heads(True) == [True, True]
    (tmp_path / "log.jsonl").unlink()
    assert moved_heads(False) == [True, False]


def test_gradients_are_clipped_to_the_norm_and_small_ones_are_left(prepared, tmp_path):
    def norm_after_a_step(clip):
        trainer = prepared.trainer(tmp_path, epochs=1, steps_per_epoch=1, gradient_clip=clip)
        trainer.fit()
        gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients])))

    free = norm_after_a_step(0.0)
    assert norm_after_a_step(1e6) == free
    assert norm_after_a_step(free / 10) == pytest.approx(free / 10, rel=1e-3)


def e2enet(prepared):
    torch.manual_seed(0)
    return create_model(
        "e2enet", in_channels=1, num_classes=prepared.dataset.labels.num_outputs, width=2, strides=(1, 2, 2)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_kernels_outside_the_masks_stay_zero_in_weights_average_and_momentum(prepared, tmp_path, optimizer):
    trainer = prepared.trainer(tmp_path, unet=e2enet(prepared), optimizer=optimizer, ema=0.9, epochs=2)
    masks = [mask.clone() for _, mask in sparse_weights(trainer.model).values()]
    trainer.fit()
    for network in (trainer.model, trainer.stepper.averaged):
        for (weight, mask), drawn in zip(sparse_weights(network).values(), masks, strict=True):
            assert torch.equal(mask, drawn)
            assert not weight[~mask].any()
            assert weight[mask].all()
    for weight, mask in sparse_weights(trainer.model).values():
        moments = [value for value in trainer.stepper.optimizer.state[weight].values() if value.shape == weight.shape]
        assert moments
        assert not any(moment[~mask].any() for moment in moments)


def test_the_average_takes_over_masks_that_change_with_zeros_outside(prepared, tmp_path):
    sparse = SparseConfig(update_every=1)
    trainer = prepared.trainer(tmp_path, unet=e2enet(prepared), ema=0.9, sparse=sparse, epochs=1, steps_per_epoch=3)
    before = {name: mask.clone() for name, (_, mask) in sparse_weights(trainer.stepper.averaged).items()}
    trainer.fit()
    found = sparse_weights(trainer.stepper.averaged)
    assert not all(torch.equal(mask, before[name]) for name, (_, mask) in found.items())
    for name, (weight, mask) in found.items():
        assert torch.equal(mask, sparse_weights(trainer.model)[name][1])
        assert not weight[~mask].any()


def test_the_average_follows_the_weights_with_the_decay(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, ema=0.5, epochs=1, steps_per_epoch=1)
    before = weights_of(trainer)
    trainer.fit()
    # Decay min(0.5, 1 / 10) in the first step: nine tenths of the way to the new weights.
    for name, now in trainer.model.state_dict().items():
        torch.testing.assert_close(weights_of(trainer)[name], 0.1 * before[name] + 0.9 * now)
    assert trainer.result is not trainer.model


def test_nesterov_momentum_is_used_where_there_is_momentum(prepared, tmp_path):
    with_momentum = prepared.trainer(tmp_path, optimizer="sgd").stepper.optimizer.param_groups[0]
    without = prepared.trainer(tmp_path, optimizer="sgd", momentum=0).stepper.optimizer.param_groups[0]
    assert (with_momentum["momentum"], with_momentum["nesterov"], without["nesterov"]) == (0.99, True, False)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_batches_are_one_large_batch(prepared, tmp_path, accumulate):
    def trained(batch_size, **settings):
        trainer = prepared.trainer(
            tmp_path / str(batch_size), unet=prepared.unet(), batch_size=batch_size, optimizer="sgd", lr=0.1, **settings
        )
        trainer.fit()
        return weights_of(trainer), [one["loss"] for one in events(tmp_path / str(batch_size), "epoch")]

    large, losses = trained(4)
    parts, part_losses = trained(4 // accumulate, accumulate=accumulate)
    assert part_losses == pytest.approx(losses, abs=1e-5)
    assert not same(large, parts)  # rounding
    for name, weight in large.items():
        torch.testing.assert_close(parts[name], weight, atol=1e-5, rtol=1e-4)


def test_a_batch_dice_pools_the_patches_of_one_batch_only(prepared, tmp_path):
    def first_loss(batch_size, accumulate):
        folder = tmp_path / str(accumulate)
        trainer = prepared.trainer(
            folder, batch_size=batch_size, accumulate=accumulate, batch_dice=True, epochs=1, steps_per_epoch=1
        )
        trainer.fit()
        return events(folder, "epoch")[0]["loss"]

    assert abs(first_loss(4, 1) - first_loss(2, 2)) > 1e-4


def test_a_step_that_loss_scaling_skips_is_counted_and_its_weights_stay(prepared, tmp_path):
    trainer = scale_losses(prepared.trainer(tmp_path, epochs=1, steps_per_epoch=3), 4096.0, too_large=1024.0)
    first = weights_of(trainer)
    kept = []
    trainer.on_progress = lambda state: kept.append(same(first, weights_of(trainer)))
    trainer.fit()
    assert kept == [True, True, False]  # halved twice
    assert trainer.counters.step == 3
    assert trainer.stepper.scaler.get_scale() == 1024.0


def overflowing(trainer, *, step):
    """Let the scaled training's forward pass overflow in that step, as float16 may."""

    def overflow(_, inputs):
        if trainer.model.training and trainer.counters.step == step - 1:
            return (inputs[0] * math.inf,)
        return None

    trainer.model.head.register_forward_pre_hook(overflow)
    return scale_losses(trainer, 1.0, too_large=1e9)


def test_a_skipped_step_without_a_loss_is_left_out_of_the_mean(prepared, tmp_path):
    losses = []
    trainer = overflowing(prepared.trainer(tmp_path, epochs=1, steps_per_epoch=3), step=2)
    trainer.on_progress = lambda state: losses.append(state.loss)
    trainer.fit()
    assert [math.isfinite(loss) for loss in losses] == [True, False, True]
    assert events(tmp_path, "epoch")[0]["loss"] == pytest.approx((losses[0] + losses[2]) / 2)


def test_an_overflow_that_spoils_the_statistics_of_batch_norms_ends_the_training(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, epochs=3, steps_per_epoch=1)
    trainer.model.head = nn.Sequential(nn.BatchNorm3d(1), trainer.model.head)
    with pytest.raises(VoxelsegError, match=r"loss became nan in step 2 .*the last good state is kept"):
        overflowing(trainer, step=2).fit()
    saved = torch.load(tmp_path / STATE_FILE, weights_only=True)["model"]
    assert saved["head.0.running_mean"].isfinite().all()


def test_scaling_that_never_succeeds_counts_as_divergence(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, epochs=1, steps_per_epoch=MOST_OVERFLOWS + 1)
    scale_losses(trainer, 1.0, too_large=0.0)
    with pytest.raises(VoxelsegError, match=f"in step {MOST_OVERFLOWS} "):
        trainer.fit()


@pytest.mark.parametrize("mask_gradients", [False, True])
def test_a_step_clips_steps_masks_counts_and_then_moves_kernels(prepared, tmp_path, mask_gradients):
    sparse = SparseConfig(update_every=2, mask_gradients=mask_gradients)
    trainer = prepared.trainer(
        tmp_path, unet=e2enet(prepared), sparse=sparse, optimizer="sgd", gradient_clip=1e-3, epochs=1, steps_per_epoch=3
    )
    masks, norms = [], []

    def look(state):
        weights = sparse_weights(trainer.model)
        masks.append([mask.clone() for _, mask in weights.values()])
        assert all(not weight[~mask].any() for weight, mask in weights.values())
        gradients = [one.grad.norm() for one in trainer.model.parameters()]
        norms.append(float(torch.linalg.vector_norm(torch.stack(gradients))))

    trainer.on_progress = look
    trainer.fit()
    # All gradients that are clipped, of inactive kernels too or set to zero before, have the allowed norm together.
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3)
    assert [all(map(torch.equal, masks[0], later)) for later in masks] == [True, False, False]
    assert [one["step"] for one in events(tmp_path, "topology")] == [0, 2]


def test_a_compiled_training_is_close_to_an_eager_one_and_keeps_its_names(prepared, tmp_path):
    eager = prepared.trainer(tmp_path / "eager", epochs=1, steps_per_epoch=2)
    eager.fit()
    compiled = prepared.trainer(tmp_path / "compiled", epochs=1, steps_per_epoch=2, compile=True)
    try:
        compiled.fit()
    except ConfigError as error:
        pytest.skip(str(error))
    assert weights_of(eager).keys() == weights_of(compiled).keys()
    for name, weight in weights_of(eager).items():
        torch.testing.assert_close(weights_of(compiled)[name], weight, atol=1e-5, rtol=1e-4)


def test_a_network_that_cannot_be_compiled_is_refused_with_the_remedy(prepared, tmp_path, monkeypatch):
    def failing(network):
        def call(image):
            raise torch._dynamo.exc.TorchDynamoException("no compiler found\ndetails")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(ConfigError, match=r"train.compile: .*no compiler found\).*another --out without it"):
        prepared.trainer(tmp_path, compile=True).fit()


def test_nested_tensors_are_moved_to_the_device():
    batch = {"image": torch.zeros(2), "parts": (torch.ones(1), [torch.ones(3)])}
    found = moved(batch, torch.device("meta"))
    assert found["image"].device.type == found["parts"][0].device.type == found["parts"][1][0].device.type == "meta"
    image, target = moved((torch.zeros(1), torch.ones(2)), torch.device("cpu"))
    assert (image.tolist(), target.tolist()) == ([0.0], [1.0, 1.0])

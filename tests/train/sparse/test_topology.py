import copy
import json
import math

import pytest
import torch
from torch import nn

from voxelseg.checkpoint import load_checkpoint
from voxelseg.nets import create_model
from voxelseg.nets.kernel_masks import gradient_strength, sparse_weights
from voxelseg.report.page import render
from voxelseg.report.run import read_run
from voxelseg.train.sparse.kernel_moves import death_rate, weakest_kernels
from voxelseg.train.sparse.settings import SparseConfig, make_sparse
from voxelseg.train.sparse.topology import Topology


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def unet():
    torch.manual_seed(0)
    return create_model("unet_s", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2))


def e2enet(**options):
    torch.manual_seed(0)
    return create_model("e2enet", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2), **options)


def sgd(network):
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def train(topology, optimizer, steps, *, first=1, total=20, seed=0):
    """Steps `first` to `steps` of `total` on random patches that depend on the step; returns the updates."""
    found = []
    for step in range(first, steps + 1):
        optimizer.zero_grad()
        x = torch.randn(2, 1, 4, 8, 8, generator=generator(1000 * seed + step))
        (topology.network(x) - 1).square().mean().backward()
        topology.before_clip()
        optimizer.step()
        found.append(topology.after_step(step / total, optimizer))
    return found


def test_kernels_move_every_1200_of_250_000_steps_208_times():
    topology = Topology(e2enet(), SparseConfig(), seed=0)
    optimizer = sgd(topology.network)
    moments = {}
    for step in range(1, 250_001):
        if step % 1200 in (1199, 0, 1) or step == 250_000:  # all others are as the first of these
            topology.steps = step - 1
            update = topology.after_step(step / 250_000, optimizer)
            if update is not None:
                moments[step] = update
    assert list(moments) == list(range(1200, 249_601, 1200))
    assert len(moments) == topology.updates == 208
    rates = [moments[step].rate for step in (1200, 124_800, 240_000)]
    assert rates == pytest.approx([0.49997, 0.2511, 0.0030], abs=1e-4)


def test_in_a_short_training_a_kernel_has_100_steps_to_learn():
    topology = Topology(e2enet(), SparseConfig(), seed=0)
    optimizer = sgd(topology.network)
    moments = [step for step in range(1, 451) if topology.after_step(step / 450, optimizer)]
    assert moments == [100, 200, 300, 400]


def test_a_time_budget_is_followed_by_the_share_that_is_done():
    """200 steps of a tenth, then faster ones: 0.0048 of the budget each, which is longer than 100 steps."""
    topology = Topology(e2enet(), SparseConfig(), seed=0)
    optimizer = sgd(topology.network)
    shares = [1e-5 * step for step in range(1, 1500)]
    moments = [step for step, share in enumerate(shares, 1) if topology.after_step(share, optimizer)]
    assert moments == [480, 960, 1440]


def test_the_interval_can_be_set_and_nothing_moves_after_the_last_step():
    topology = Topology(e2enet(), SparseConfig(update_every=4), seed=0)
    updates = train(topology, sgd(topology.network), 12, total=12)
    assert [step for step, update in enumerate(updates, 1) if update] == [4, 8]
    assert [update.update for update in updates if update] == [1, 2]
    assert updates[3].rate == pytest.approx(death_rate(4 / 12))
    assert updates[3].moved == sum(math.ceil(updates[3].rate * active) for active, _ in updates[3].layers.values())


def test_steps_that_loss_scaling_skips_are_counted_and_kernels_move_in_them_too():
    network = e2enet()
    topology = Topology(network, SparseConfig(update_every=2), seed=0)
    optimizer, scaler = sgd(network), torch.amp.GradScaler("cpu", init_scale=4.0)
    weights, updates = [], []
    for step in (1, 2):
        optimizer.zero_grad()
        loss = (network(torch.randn(2, 1, 4, 8, 8, generator=generator(step))) - 1).square().mean()
        scaler.scale(loss).backward()
        if step == 2:
            network.heads[0].weight.grad.fill_(math.inf)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        weights.append(network.heads[0].weight.detach().clone())
        updates.append(topology.after_step(step / 10, optimizer))
    assert torch.equal(*weights)  # the second step was skipped
    assert [update is None for update in updates] == [True, False]
    assert topology.steps == 2


def test_a_frozen_topology_stays_and_its_inactive_kernels_are_zero():
    network = e2enet()
    topology = Topology(network, SparseConfig(freeze_topology=True), seed=0)
    masks = [mask.clone() for _, mask in sparse_weights(network).values()]
    assert train(topology, sgd(network), 5, total=500) == [None] * 5
    for (weight, mask), before in zip(sparse_weights(network).values(), masks, strict=True):
        assert torch.equal(mask, before)
        assert not weight[~mask].any()


def test_nothing_is_logged_of_layers_that_are_all_frozen():
    network = e2enet()
    for weight, _ in sparse_weights(network).values():
        weight.requires_grad_(False)
    topology = Topology(network, SparseConfig(update_every=1), seed=0)
    assert train(topology, sgd(network), 3) == [None] * 3
    assert topology.updates == 0


def test_weights_of_a_dense_network_are_masked_at_once():
    network = e2enet()
    with torch.no_grad():
        for weight, _ in sparse_weights(network).values():
            weight.fill_(1.0)
    Topology(network, SparseConfig(), seed=0)
    assert all(torch.equal(weight.flatten(2)[..., 0] > 0, mask) for weight, mask in sparse_weights(network).values())


@pytest.mark.parametrize("mask_gradients_first", [False, True])
def test_gradient_growth_takes_the_kernels_with_the_largest_gradients(mask_gradients_first):
    network = e2enet()
    config = SparseConfig(growth="gradient", update_every=3, mask_gradients=mask_gradients_first)
    topology = Topology(network, config, seed=0)
    optimizer = sgd(network)
    train(topology, optimizer, 2)
    # The third step by hand, so that what it starts from is known.
    optimizer.zero_grad()
    (network(torch.randn(2, 1, 4, 8, 8, generator=generator(7))) - 1).square().mean().backward()
    strengths = gradient_strength(network)
    topology.before_clip()
    optimizer.step()
    weights = {
        name: (weight.detach().clone(), mask.clone()) for name, (weight, mask) in sparse_weights(network).items()
    }
    update = topology.after_step(3 / 20, optimizer)
    for name, (_, mask) in sparse_weights(network).items():
        weight, before = weights[name]
        number = math.ceil(update.rate * int(before.sum()))
        kept = before & ~weakest_kernels(weight, before, number)
        order = sorted((-float(strengths[name][place]), place) for place in map(tuple, (~kept).nonzero().tolist()))
        expected = kept.clone()
        for _, place in order[:number]:
            expected[place] = True
        assert torch.equal(mask, expected), name


def test_gradient_growth_waits_for_finite_gradients():
    network = e2enet()
    topology = Topology(network, SparseConfig(growth="gradient", update_every=2), seed=0)
    optimizer = sgd(network)
    train(topology, optimizer, 1)
    for weight, _ in sparse_weights(network).values():
        weight.grad.fill_(math.inf)
    assert topology.after_step(2 / 20, optimizer) is None  # loss scaling skipped this step
    assert topology.steps == 2
    (update,) = train(topology, optimizer, 3, first=3)
    assert update.step == 3
    assert train(topology, optimizer, 4, first=4)[0].step == 4  # the pace is kept


@pytest.mark.parametrize("mask_gradients_first", [False, True])
def test_gradient_growth_waits_if_any_gradient_overflowed(mask_gradients_first):
    """Clipping then makes zeros of the finite ones, and the first kernels in memory would be the strongest."""
    network = e2enet()
    config = SparseConfig(growth="gradient", update_every=2, mask_gradients=mask_gradients_first)
    topology = Topology(network, config, seed=0)
    optimizer = sgd(network)
    train(topology, optimizer, 1)
    (network(torch.randn(2, 1, 4, 8, 8, generator=generator())) - 1).square().mean().backward()
    network.heads[0].weight.grad[0] = math.inf
    topology.before_clip()
    nn.utils.clip_grad_norm_(network.parameters(), 12.0)
    assert not any(weight.grad.any() for weight, _ in sparse_weights(network).values())
    assert topology.after_step(2 / 20, optimizer) is None


def test_gradients_of_inactive_kernels_are_left_out_of_the_norm_if_asked_for():
    norms = []
    for option in (False, True):
        network = e2enet(sparsity=0.5)
        topology = Topology(network, SparseConfig(mask_gradients=option), seed=0)
        (network(torch.randn(2, 1, 4, 8, 8, generator=generator())) - 1).square().mean().backward()
        topology.before_clip()
        norms.append(torch.nn.utils.get_total_norm([one.grad for one in network.parameters() if one.grad is not None]))
        outside = [bool(weight.grad[~mask].any()) for weight, mask in sparse_weights(network).values()]
        assert outside == [not option] * len(outside)
    assert norms[1] < norms[0]


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_a_continued_training_has_the_same_masks_after_a_stop_at_any_step(growth):
    def fresh():
        network = e2enet()
        return Topology(network, SparseConfig(update_every=3, growth=growth), seed=5), sgd(network)

    whole, optimizer = fresh()
    train(whole, optimizer, 11)
    for stop in range(1, 11):
        first, optimizer = fresh()
        train(first, optimizer, stop)
        saved = copy.deepcopy((first.network.state_dict(), optimizer.state_dict(), first.state()))
        second, optimizer = fresh()
        torch.randperm(3, generator=second.generator)
        second.network.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        second.restore(saved[2])
        train(second, optimizer, 11, first=stop + 1)
        for key, value in whole.network.state_dict().items():
            assert torch.equal(second.network.state_dict()[key], value), (stop, key)


def test_two_seeds_move_other_kernels():
    masks = []
    for seed in (0, 0, 1):
        topology = Topology(e2enet(), SparseConfig(update_every=2), seed=seed)
        train(topology, sgd(topology.network), 2)
        masks.append(torch.cat([mask.flatten() for _, mask in sparse_weights(topology.network).values()]))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_the_census_counts_active_kernels_by_layer_and_by_direction():
    network = e2enet(sparsity=0.5)  # widths 4, 8, 16 on three levels
    topology = Topology(network, SparseConfig(), seed=0)
    layer, other = (network.get_submodule(f"fusion.{name}.0.conv").kernel_mask for name in ("0.0", "0.1"))
    layer.zero_()
    layer[:, :4] = True  # x[1,0] sees 4 channels of its own level, then 4 of level 1
    other.zero_()
    other[:2, 16:] = True  # x[1,1] sees 8 of its own level, 8 of level 2, 4 of level 0
    census = topology.census()
    assert (census.step, census.update, census.rate, census.moved) == (0, 0, 0.0, 0)
    assert census.nodes["x[1,0]"] == {"forward": (16, 16), "up": (0, 16)}
    assert census.nodes["x[1,1]"] == {"forward": (0, 64), "up": (0, 64), "down": (8, 32)}
    assert census.layers["fusion.0.1.0.conv"] == (8, 160)
    assert list(census.nodes) == ["x[1,0]", "x[1,1]", "x[2,0]"]
    assert set(census.layers) == set(network.sparse_layers())


def test_a_network_without_fusion_nodes_has_layers_only():
    model = unet()
    config = SparseConfig(layers=("decoder*",), sparsity=0.5, update_every=2)
    make_sparse(model, config)
    topology = Topology(model, config, seed=0)
    update = train(topology, sgd(model), 2)[1]
    assert update.nodes == {}
    assert all(2 * active == kernels for active, kernels in update.layers.values())


# ------------------------------------------------------------------------------------------------- in real trainings


def weakest_the_slow_way(weight, mask, number):
    """Places of the `number` active kernels with the smallest sums of absolute values, one kernel after the other."""
    places = [(row, column) for row in range(mask.shape[0]) for column in range(mask.shape[1]) if mask[row, column]]
    sums = [(float(weight[place].abs().sum()), place) for place in places]
    return {place for _, place in sorted(sums)[:number]}


def watch(topology, seen):
    """Let `topology` check, in every step, what must hold; the updates are appended to `seen`."""
    inner = topology.after_step
    counts = {name: int(mask.sum()) for name, (_, mask) in sparse_weights(topology.network).items()}

    def after_step(progress, optimizer):
        before = {
            name: (weight.detach().clone(), mask.clone())
            for name, (weight, mask) in sparse_weights(topology.network).items()
        }
        update = inner(progress, optimizer)
        networks = [topology.network] if topology.averaged is None else [topology.network, topology.averaged]
        for network in networks:
            for name, (weight, mask) in sparse_weights(network).items():
                assert int(mask.sum()) == counts[name]
                assert not weight[~mask].any()
        for name, (weight, mask) in sparse_weights(topology.network).items():
            moments = [value for value in optimizer.state[weight].values() if value.shape == weight.shape]
            assert moments
            assert not any(moment[~mask].any() for moment in moments)
            old_weight, old_mask = before[name]
            if update is None:
                assert torch.equal(mask, old_mask)
                continue
            removed = weakest_the_slow_way(old_weight, old_mask, math.ceil(update.rate * counts[name]))
            gone = set(map(tuple, (old_mask & ~mask).nonzero().tolist()))
            zero = set(map(tuple, (mask & (weight == 0).flatten(2).all(2)).nonzero().tolist()))
            idle = set(map(tuple, (old_mask & (old_weight == 0).flatten(2).all(2)).nonzero().tolist()))
            new = set(map(tuple, (mask & ~old_mask).nonzero().tolist()))
            back = removed - gone
            assert gone <= removed  # what stays of the removed ones came back
            assert new | back <= zero
            assert zero - (new | back) <= idle  # their input or output is connected to nothing: they got no gradient
            assert len(new) + len(back) == len(removed)
        if update is not None:
            seen.append(update)
        return update

    topology.after_step = after_step


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "growth"), [("sgd", "random"), ("adamw", "random"), ("sgd", "gradient")])
def test_in_300_steps_with_10_updates_all_that_is_promised_holds(prepared, tmp_path, optimizer, growth):
    trainer = prepared.trainer(
        tmp_path,
        unet=tiny_e2enet(prepared),
        sparse=SparseConfig(update_every=28, growth=growth),  # 10 times in 300 steps
        optimizer=optimizer,
        lr=1e-3,
        ema=0.9,
        epochs=3,
        steps_per_epoch=100,
    )
    updates = []
    watch(trainer.stepper.topology, updates)
    trainer.fit()
    assert [update.step for update in updates] == list(range(28, 281, 28))
    assert [update.rate for update in updates] == [death_rate(step / 300) for step in range(28, 281, 28)]
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    states = [event for event in logged if event["event"] == "topology"]
    assert [state["step"] for state in states] == [0, *range(28, 281, 28)]
    assert states[-1]["moved"] == updates[-1].moved
    assert states[-1]["nodes"]["x[1,1]"].keys() == {"forward", "up", "down"}


def tiny_e2enet(prepared):
    torch.manual_seed(0)
    return create_model(
        "e2enet", in_channels=1, num_classes=prepared.dataset.labels.num_outputs, width=4, strides=(1, 2, 2)
    )


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_training_that_is_stopped_at_any_step_ends_with_the_same_masks(prepared, tmp_path, stop, monkeypatch):
    def trainer(name):
        return prepared.trainer(
            tmp_path / name,
            unet=tiny_e2enet(prepared),
            sparse=SparseConfig(update_every=2),
            ema=0.9,
            epochs=2,
            steps_per_epoch=4,
        )

    whole, first = trainer("whole"), trainer("stopped")
    whole.fit()
    take_step = first._take_step

    def killed_after(batches):
        if first.counters.step == stop:
            first.save_state()
            raise KeyboardInterrupt
        return take_step(batches)

    monkeypatch.setattr(first, "_take_step", killed_after)
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = trainer("stopped")
    assert second.load_state()
    second.fit()
    for network, same in ((whole.model, second.model), (whole.result, second.result)):
        for (key, value), again in zip(network.state_dict().items(), same.state_dict().values(), strict=True):
            assert torch.equal(value, again), key
    logs = [
        [line for line in (tmp_path / name / "log.jsonl").read_text().splitlines() if '"topology"' in line]
        for name in ("whole", "stopped")
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 4  # before the first step, then after steps 2, 4 and 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("unet_s", ["sparse.layers=[decoder*]", "sparse.sparsity=0.5", "sparse.growth=gradient"]),
        ("e2enet", ["sparse.mask_gradients=true", "train.ema=0.5"]),
    ],
)
def test_a_run_with_moving_kernels_is_trained_scored_and_reported(tiny_msd, train_tiny, tmp_path, model, settings):
    run = train_tiny(
        tiny_msd,
        tmp_path / "run",
        model=model,
        settings=["plan.patch_size=[16,16,16]", "sparse.update_every=1", *settings],
    )
    checkpoint = load_checkpoint(run.model_file(0))
    network = checkpoint.build()
    assert sparse_weights(network)
    for name, (weight, mask) in sparse_weights(network).items():
        assert torch.equal(mask, checkpoint.weights[f"{name}.kernel_mask"])
        assert not weight[~mask].any()
    page = render(read_run(tmp_path / "run"))
    assert "3, from step 1 to 3" in page  # of 4 steps, the last of which moves nothing
    assert ("Connections before and after training" in page) == (model == "e2enet")

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from voxelseg.nets.kernel_masks import add_masks, sparse_weights
from voxelseg.train.sparse.kernel_moves import (
    death_rate,
    move_kernels,
    random_kernels,
    strongest_kernels,
    weakest_kernels,
)


def topology(folder, case):
    tensors = load_file(folder / "e2enet_a_shared_ops.safetensors")
    facts = json.loads((folder / "e2enet_a_shared_ops.json").read_text())
    prefix = f"topology.{case}."
    return facts["topology"][case], {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sparse_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(5, 6, (1, 3, 3)), nn.ConvTranspose3d(6, 4, 2, 2, bias=False), nn.Conv3d(4, 2, 1))
    add_masks(network, ["0", "1"], 0.7)
    return network


def test_death_rates_are_those_of_the_authors_code(golden_data):
    facts = json.loads((golden_data / "e2enet_a_shared_ops.json").read_text())
    total = facts["death_rate_schedule"]["T_max"]
    for step, expected in facts["death_rate"]:
        assert death_rate(step / total) == pytest.approx(expected, abs=1e-9)


def test_the_papers_rate_falls_from_a_half_to_nothing():
    assert [death_rate(progress, final=0.0) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.5, 0.25, 0.0])


@pytest.mark.parametrize("case", [0, 1])
def test_the_weakest_kernels_are_those_that_the_authors_code_removes(golden_data, case):
    facts, tensors = topology(golden_data, case)
    mask = tensors["mask_before"].bool()
    removed = weakest_kernels(tensors["weight"], mask, facts["num_remove_requested"])
    assert torch.equal(removed, tensors["removed"].bool())


def test_of_equally_weak_kernels_no_more_are_removed_than_asked_for(golden_data):
    """The authors' code removes all of them and ends with one active kernel less; here the number is exact."""
    facts, tensors = topology(golden_data, 2)
    assert facts["has_tie_at_threshold"]
    mask, theirs = tensors["mask_before"].bool(), tensors["removed"].bool()
    removed = weakest_kernels(tensors["weight"], mask, facts["num_remove_requested"])
    assert (int(removed.sum()), int(theirs.sum())) == (18, 19)
    assert not (removed & ~theirs).any()
    after = (mask & ~removed) | random_kernels(mask & ~removed, 18, generator())
    assert (int(after.sum()), facts["active_after_growth"]) == (72, 71)


def test_of_equally_weak_kernels_the_first_are_removed():
    weight = torch.ones(2, 3, 1, 1, 1)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert weakest_kernels(weight, mask, 2).tolist() == [[True, False, True], [False, False, False]]


def test_strength_is_the_sum_of_absolute_values():
    weight = torch.tensor([[[3.0, -3.0], [1.0, 1.5]], [[0.5, 0.0], [0.0, -2.0]]])  # sums 6, 2.5, 0.5, 2
    mask = torch.tensor([[True, True], [False, True]])
    assert weakest_kernels(weight, mask, 2).tolist() == [[False, True], [False, True]]


def test_the_draw_is_uniform_over_inactive_kernels_and_repeatable():
    mask = torch.tensor([[True, False, False], [True, False, False]])
    counts = torch.zeros(2, 3)
    for seed in range(300):
        drawn = random_kernels(mask, 2, generator(seed))
        assert int(drawn.sum()) == 2
        counts += drawn
    assert not counts[mask].any()
    # 300 draws of 2 among 4: 150 +- 9 each; 4 deviations
    assert counts[~mask].min() > 114
    assert torch.equal(random_kernels(mask, 2, generator(7)), random_kernels(mask, 2, generator(7)))


def test_more_than_there_are_cannot_be_removed_or_drawn():
    mask = torch.tensor([[True, False]])
    with pytest.raises(ValueError, match="2 of 1 active"):
        weakest_kernels(torch.ones(1, 2, 1), mask, 2)
    with pytest.raises(ValueError, match="2 of 1 inactive kernels cannot become active"):
        random_kernels(mask, 2, generator())
    with pytest.raises(ValueError, match="2 of 1 inactive kernels cannot become active"):
        strongest_kernels(torch.ones(1, 2), mask, 2)


def test_the_strongest_inactive_kernels_are_found_and_the_first_of_equal_ones():
    strength = torch.tensor([[9.0, 2.0, 5.0], [2.0, 0.0, 7.0]])
    mask = torch.tensor([[True, False, False], [False, False, True]])
    assert strongest_kernels(strength, mask, 2).tolist() == [[False, True, True], [False, False, False]]


def test_the_number_of_active_kernels_never_changes_and_what_moved_starts_from_zero():
    network = sparse_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(1, 5, 2, 6, 5)).square().mean().backward()
    optimizer.step()
    before = {name: (weight.detach().clone(), mask.clone()) for name, (weight, mask) in sparse_weights(network).items()}
    moved = move_kernels(network, 0.5, generator(), optimizer)
    assert moved == {"0": 5, "1": 4}  # 30 * 0.3 = 9 and 24 * 0.3 = 7.2 active ones, half of them rounded up
    for name, (weight, mask) in sparse_weights(network).items():
        old_weight, old_mask = before[name]
        removed = weakest_kernels(old_weight, old_mask, moved[name])
        kept = old_mask & ~removed
        assert mask.sum() == old_mask.sum()
        assert not (kept & ~mask).any()
        assert torch.equal(weight[kept], old_weight[kept])
        momentum = optimizer.state[weight]["momentum_buffer"]
        for tensor in (weight, momentum):  # of inactive kernels as of fresh ones
            assert not tensor[~kept].any()
            assert tensor[kept].any()


def test_a_kernel_that_was_just_removed_may_come_back_and_starts_from_zero():
    network = nn.Sequential(nn.Conv3d(2, 2, 1))
    add_masks(network, ["0"], 0.25)
    before = sparse_weights(network)["0"][1].clone()
    move_kernels(network, 0.5, generator())  # 2 of 3 are removed, then 2 of 3 inactive ones drawn: at least one again
    weight, mask = sparse_weights(network)["0"]
    assert int((mask & before).sum()) >= 2
    assert int((weight == 0).sum()) == 3


def test_moving_is_repeatable_and_moves_nothing_at_rate_zero():
    networks = [sparse_network() for _ in range(3)]
    for network, rate in zip(networks, (0.5, 0.5, 0.0), strict=True):
        move_kernels(network, rate, generator(3))
    first, again, still = ([mask for _, mask in sparse_weights(network).values()] for network in networks)
    untouched = [mask for _, mask in sparse_weights(sparse_network()).values()]
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, untouched))
    assert all(map(torch.equal, still, untouched))


def test_masks_survive_many_moves_within_their_count():
    network = sparse_network()
    counts = {name: int(mask.sum()) for name, (_, mask) in sparse_weights(network).items()}
    draws = generator(1)
    for step in range(20):
        move_kernels(network, death_rate(step / 20), draws)
        with torch.no_grad():  # the new ones learn
            for weight, mask in sparse_weights(network).values():
                weight += torch.randn_like(weight) * mask[..., None, None, None]
    assert {name: int(mask.sum()) for name, (_, mask) in sparse_weights(network).items()} == counts


def test_frozen_layers_and_layers_without_inactive_kernels_are_left_alone():
    network = sparse_network()
    add_masks(network, ["2"], 0.0)
    network[1].weight.requires_grad_(False)
    before = {name: weight.clone() for name, (weight, _) in sparse_weights(network).items()}
    assert move_kernels(network, 0.5, generator()).keys() == {"0"}
    after = {name: weight for name, (weight, _) in sparse_weights(network).items()}
    assert [torch.equal(before[name], after[name]) for name in ("0", "1", "2")] == [False, True, True]
    assert move_kernels(network, 0.5, generator(), strengths={}) == {}  # none has got a gradient


def test_an_average_gets_the_same_masks_and_what_moved_starts_from_zero_there_too():
    network = sparse_network()
    average = copy.deepcopy(network)
    before = sparse_weights(network)["0"][1].clone()
    move_kernels(network, 0.5, generator(), averaged=average)
    weight, mask = sparse_weights(network)["0"]
    averaged, same = sparse_weights(average)["0"]
    assert torch.equal(mask, same)
    assert not torch.equal(mask, before)
    assert torch.equal(averaged == 0, weight == 0)

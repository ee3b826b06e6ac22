import pytest
import torch

from voxelseg.nets import create_model
from voxelseg.train.start.matching import average_channels, match_tensors

MEDNEXT = {"width": 2, "blocks": 1}


def outcomes(network, weights, **changes):
    options = {"heads_fit": True, "average": False, "grow": False, **changes}
    matches = match_tensors(network, weights, **options)
    return matches, {outcome: set(names) for outcome, names in matches.outcomes.items() if names}


def test_every_tensor_has_one_outcome_and_the_network_stays_as_it_is():
    network = create_model("mednext_xs", num_classes=2, **MEDNEXT)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {name: value + 1 for name, value in before.items() if name != "stem.bias"}
    weights |= {"down.0.norm.bias": torch.zeros(3), "of another network": torch.zeros(1)}
    matches, found = outcomes(network, weights, heads_fit=False)
    assert found == {
        "matched": before.keys() - {"stem.bias", "down.0.norm.bias", "heads.0.weight", "heads.0.bias"},
        "missing": {"stem.bias"},
        "mismatched": {"down.0.norm.bias"},
        "fresh_heads": {"heads.0.weight", "heads.0.bias"},
        "left_out": {"of another network"},
    }
    assert matches.taken.keys() == found["matched"]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    numbers = {name: value.numel() for name, value in before.items() if not name.startswith("heads.")}
    lacking = numbers["stem.bias"] + numbers["down.0.norm.bias"]
    assert matches.share == pytest.approx(1 - lacking / sum(numbers.values()))


def test_what_an_option_would_let_through_is_refused_without_it():
    small = create_model("mednext_xs", in_channels=2, num_classes=2, **MEDNEXT).state_dict()
    large = create_model("mednext_xs", in_channels=1, num_classes=2, kernel_size=5, **MEDNEXT)
    matches, _ = outcomes(large, small)
    assert matches.refused["channels"] == ["stem.weight"]
    assert len(matches.refused["kernels"]) == 17  # nine blocks and eight between the levels
    assert matches.taken.keys() & {"stem.weight", *matches.refused["kernels"]} == set()
    matches, found = outcomes(large, small, average=True, grow=True)
    assert not any(matches.refused.values())
    assert found["averaged"] == {"stem.weight"}
    assert matches.share == 1.0


def test_kernels_that_are_larger_along_one_axis_are_refused():
    flat = create_model("mednext_xs", num_classes=2, kernel_size=((1, 5, 5), 5, 5, 5, 5), **MEDNEXT)
    cubes = create_model("mednext_xs", num_classes=2, kernel_size=3, **MEDNEXT)
    matches, _ = outcomes(flat, cubes.state_dict(), grow=True)
    assert matches.refused["larger kernels"] == ["encoder.0.0.depthwise.weight", "decoder.0.0.depthwise.weight"]


def test_only_what_was_pre_trained_is_missed_and_counted():
    network = create_model("mednext_xs", num_classes=2, **MEDNEXT)
    weights = {name: value for name, value in network.state_dict().items() if name.startswith(("stem.", "encoder.0."))}
    part = {*weights, "down.0.norm.weight"}
    matches, found = outcomes(network, weights, part=part)
    assert found["matched"] == weights.keys()
    assert found["missing"] == {"down.0.norm.weight"}
    assert found["fresh_heads"] == {"heads.0.weight", "heads.0.bias"}
    assert found["untrained"] == network.state_dict().keys() - part - found["fresh_heads"]
    taken = sum(value.numel() for value in weights.values())
    assert matches.share == pytest.approx(taken / (taken + 2))  # two channels have a weight of the norm each


def test_averaged_channels_respond_to_equal_channels_as_before():
    weight = torch.tensor([[[1.0], [3.0]]])  # one output, two inputs, one tap: 1 x + 3 x = 4 x
    assert average_channels(weight, 4).tolist() == [[[1.0]] * 4]  # 4 times 1 x
    assert average_channels(weight, 1).tolist() == [[[4.0]]]

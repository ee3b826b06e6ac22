import pytest
import torch
import torch.nn.functional as F
from small import SMALL
from torch import nn

from voxelseg.nets import create_model, multiscale
from voxelseg.nets.multiscale import MultiscaleNetwork

PARTS_OF_RECOMPUTING = {
    "mednext_s": 9 + 4 + 4,  # blocks of the stages, down and up
    "e2enet": 4 + 3 + 2 + 1,  # levels of the encoder, and the nodes of each stage
}
"""Of the small networks, by name: how many parts are computed again."""


def recomputing(name, *, checkpointing=True):
    torch.manual_seed(0)
    options = {"in_channels": 1, "num_classes": 2, "deep_supervision": True, **SMALL[name]}
    return create_model(name, **options, checkpointing=checkpointing).train()


class TwoLevels(MultiscaleNetwork):
    """Features are the image, and above the lowest level the mean of 2 x 2 x 2 voxels."""

    def __init__(self):
        super().__init__([(1, 1, 1), (2, 2, 2)], divisor=(2, 2, 2), in_channels=1, feature_channels=1)
        self.heads = nn.ModuleList(nn.Conv3d(1, 3, 1, bias=level == 0) for level in range(2))

    def _encode(self, x):
        return [x, F.avg_pool3d(x, 2)]

    def _decode(self, x, num_levels, see):
        return [see(level, y) for level, y in enumerate(self._encode(x)[:num_levels])]


def test_one_way_serves_logits_features_and_encodings():
    network, x = TwoLevels(), torch.randn(1, 1, 2, 4, 6)
    full, low = network(x)
    assert (full.shape, low.shape) == ((1, 3, 2, 4, 6), (1, 3, 1, 2, 3))
    assert torch.equal(network.features(x), x)
    torch.testing.assert_close(network.classify(x), network.heads[0](x))
    torch.testing.assert_close(low, network.heads[1](F.avg_pool3d(x, 2)))  # a head without bias
    (deepest,) = network.encode(x)
    assert torch.equal(deepest, F.avg_pool3d(x, 2))
    network.deep_supervision = False
    assert torch.equal(network(x), full)


def test_levels_that_nobody_asks_for_are_not_looked_at():
    network, looked_at = TwoLevels(), []
    network.deep_supervision = False
    network._head = lambda level, x: looked_at.append(level) or x
    network(torch.randn(1, 1, 2, 2, 4))
    assert looked_at == [0]


def test_a_network_must_say_how_it_goes_down_and_up():
    with pytest.raises(TypeError, match=r"abstract methods.*_decode.*_encode"):
        MultiscaleNetwork([(1, 1, 1)], divisor=(2, 2, 2), in_channels=1)


@pytest.mark.parametrize("name", PARTS_OF_RECOMPUTING)
def test_checkpointing_changes_no_number(name):
    x = torch.randn(1, 1, 16, 16, 32)
    gradients = []
    for checkpointing in (False, True):
        model = recomputing(name, checkpointing=checkpointing)
        torch.stack([y.square().mean() for y in model(x)]).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", PARTS_OF_RECOMPUTING)
def test_checkpointing_is_for_training_alone(monkeypatch, name):
    calls = []

    def counted(part, *inputs, use_reentrant):
        calls.append(use_reentrant)
        return part(*inputs)

    monkeypatch.setattr(multiscale, "checkpoint", counted)
    model, x = recomputing(name), torch.randn(1, 1, 16, 16, 32)
    model.eval()(x)
    with torch.no_grad():
        model.train()(x)
    assert calls == []
    model(x)
    assert calls == [False] * PARTS_OF_RECOMPUTING[name]

import pytest
import torch
from torch import nn

from voxelseg.nets import create_model, logonet
from voxelseg.train.machines.batch_norm import ProcessesBatchNorm, synchronise_batch_norms

# That several processes compute what one does is tested in test_distributed.py.


def small_logonet(**more) -> nn.Module:
    torch.manual_seed(0)
    options = {"dims": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2), "local_stages": 1, "cubes_per_axis": (1, 2, 2)}
    return create_model("logonet", in_channels=1, num_classes=3, **options, **more)


def test_every_batch_norm_is_replaced_and_names_parameters_and_buffers_stay():
    network = small_logonet()
    number = sum(isinstance(layer, nn.BatchNorm3d) for layer in network.modules())
    parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
    synchronise_batch_norms(network)
    assert sum(isinstance(layer, ProcessesBatchNorm) for layer in network.modules()) == number > 10
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in network.modules())
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    assert all(buffer is buffers[name] for name, buffer in network.named_buffers())
    assert (len(parameters), len(buffers)) == (len(list(network.parameters())), len(list(network.buffers())))
    before = {name: id(layer) for name, layer in network.named_modules()}
    synchronise_batch_norms(network)  # a second time changes nothing
    assert {name: id(layer) for name, layer in network.named_modules()} == before


def test_evaluation_is_that_of_a_plain_batch_norm_and_exchanges_nothing():
    plain, shared = small_logonet().eval(), small_logonet().eval()
    synchronise_batch_norms(shared)
    x = torch.randn(2, 1, 8, 16, 16)
    with torch.no_grad():
        assert torch.equal(shared(x), plain(x))


def test_evaluation_without_running_statistics_exchanges_nothing_either():
    plain, shared = (nn.Sequential(nn.BatchNorm3d(2, track_running_stats=False)).eval() for _ in range(2))
    synchronise_batch_norms(shared)
    x = torch.randn(2, 2, 3, 4, 5) + 3
    assert torch.equal(shared(x), plain(x))


@pytest.mark.parametrize("mode", [True, False])
def test_settings_and_mode_are_kept(mode):
    network = nn.Sequential(nn.BatchNorm3d(3, eps=0.1, momentum=None, affine=False)).train(mode)
    synchronise_batch_norms(network)
    (layer,) = network
    assert (layer.eps, layer.momentum, layer.affine, layer.training) == (0.1, None, False, mode)


def test_networks_whose_norms_exchange_statistics_run_one_after_the_other(monkeypatch):
    network = small_logonet(local_execution="batch").eval()
    as_one = []
    monkeypatch.setattr(
        logonet,
        "run_as_one",
        lambda nets, parts: as_one.append(len(nets)) or [net(part) for net, part in zip(nets, parts, strict=True)],
    )
    x = torch.randn(2, 1, 8, 16, 16)
    with torch.no_grad():
        network(x)
        synchronise_batch_norms(network)
        network(x)
    assert as_one == [4]  # 1 x 2 x 2 parts, before the norms were changed

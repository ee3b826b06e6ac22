import pytest
import torch
from test_contract import every_small_network, patch, small, with_all_heads
from torch import Tensor

import voxelseg
from voxelseg.nets import Network


def with_traces_of_training(model: Network) -> Network:
    """The model after a pass in training mode, with running statistics that are not those at the start."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    model.train()(patch(model, batch=2))
    return model


@every_small_network
def test_the_optimized_copy_says_the_same_and_the_model_stays_as_it_is(name):
    model = with_traces_of_training(small(name, **with_all_heads(name)))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    supervised, trained = model.deep_supervision, [parameter.requires_grad for parameter in model.parameters()]
    optimized = voxelseg.optimize_for_inference(model)
    assert model.training
    assert model.deep_supervision == supervised
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())

    assert not optimized.training
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    x = patch(model, batch=2)
    model.eval().deep_supervision = False
    with torch.no_grad():
        expected, found = model(x), optimized(x)
    assert isinstance(found, Tensor)
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_the_copy_shares_no_weights_with_the_model():
    model = small("unet_s")
    optimized = voxelseg.optimize_for_inference(model)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in optimized.parameters()}


def test_the_copy_lies_where_it_is_asked_for():
    optimized = voxelseg.optimize_for_inference(small("unet_s"), "meta")
    assert all(parameter.is_meta for parameter in optimized.parameters())


def test_a_network_fuses_what_it_can():
    class Fused(Network):
        def __init__(self) -> None:
            super().__init__([(1, 1, 1), (2, 2, 2)], divisor=(2, 2, 2), in_channels=1)
            self.factors = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

        def fuse(self) -> None:
            assert not self.training
            self.factors = torch.nn.Parameter(self.factors.prod())

        def forward(self, x: Tensor) -> Tensor | list[Tensor]:
            x = x * self.factors.prod()
            return [x, x[..., ::2, ::2, ::2]] if self.deep_supervision else x

    optimized = voxelseg.optimize_for_inference(Fused())
    assert optimized.factors.shape == ()
    assert optimized(torch.ones(1, 1, 2, 2, 2)).tolist() == torch.full((1, 1, 2, 2, 2), 6.0).tolist()


@pytest.mark.gpu
@every_small_network
def test_on_a_gpu_the_copy_says_the_same(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = with_traces_of_training(small(name, **with_all_heads(name)))
    optimized = voxelseg.optimize_for_inference(model, "cuda")
    x = patch(model)
    model.eval().deep_supervision = False
    with torch.no_grad():
        expected, found = model(x), optimized(x.cuda()).cpu()
    assert (found - expected).norm() < 5e-3 * expected.norm()

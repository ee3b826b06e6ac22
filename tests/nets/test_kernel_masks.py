import pytest
import torch
from torch import nn

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model
from voxelseg.nets.kernel_masks import (
    MASK,
    add_masks,
    copy_masks,
    gradient_strength,
    is_sparse,
    mask_gradients,
    mask_weights,
    num_active,
    restore_masks,
    sparse_weights,
)
from voxelseg.ops.dispatch import plain_forms


class Pair(nn.Module):
    """A convolution and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(5, 3, (1, 3, 3))
        self.up = nn.ConvTranspose3d(5, 4, 2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean() + self.up(x).square().mean()


def masked(sparsity: float = 0.8) -> Pair:
    torch.manual_seed(0)
    pair = Pair()
    add_masks(pair, ["conv", "up"], sparsity)
    return pair


def outside(pair: Pair, tensor: torch.Tensor, layer: str) -> torch.Tensor:
    return tensor[~pair.get_submodule(layer).get_buffer(MASK)]


@pytest.mark.parametrize(("sparsity", "conv", "up"), [(0.8, 3, 4), (0.7, 5, 6), (0.9, 1, 2), (0.0, 15, 20)])
def test_exactly_the_share_of_the_kernels_is_active(sparsity, conv, up):
    # 5 * 3 = 15 kernels of the convolution, 5 * 4 = 20 of the other. Halves go either way, since shares are binary
    # numbers: 15 * (1 - 0.7) is a little more than 4.5, and 15 * (1 - 0.9) a little less than 1.5.
    pair = masked(sparsity)
    masks = {name: mask for name, (_, mask) in sparse_weights(pair).items()}
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {"conv": (3, 5), "up": (5, 4)}
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"conv": conv, "up": up}
    assert num_active(15, sparsity) == conv


def test_a_layer_without_any_active_kernel_is_refused():
    with pytest.raises(ConfigError, match=r"sparsity = 0\.97: layer conv would keep none of its 15 kernels"):
        masked(0.97)  # 15 * 0.03 = 0.45


def test_weights_outside_the_masks_are_zero_and_inside_untouched():
    pair = masked()
    torch.manual_seed(0)
    dense = Pair()
    for layer in ("conv", "up"):
        weight, mask = sparse_weights(pair)[layer]
        assert not weight[~mask].any()
        assert torch.equal(weight[mask], dense.get_submodule(layer).weight[mask])
    assert torch.equal(pair.conv.bias, dense.conv.bias)


def test_masks_are_drawn_from_the_global_generator_and_saved_with_the_weights():
    first, second, again = masked(), Pair(), masked()
    add_masks(second, ["conv", "up"], 0.8)
    assert torch.equal(first.conv.kernel_mask, again.conv.kernel_mask)
    assert not torch.equal(first.conv.kernel_mask, second.conv.kernel_mask)
    assert first.state_dict()["up.kernel_mask"].dtype == torch.bool
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.up.kernel_mask, first.up.kernel_mask)


def test_every_kernel_is_drawn_about_equally_often():
    torch.manual_seed(0)
    counts = torch.zeros(3, 5)
    for _ in range(400):
        pair = Pair()
        add_masks(pair, ["conv"], 0.8)
        counts += pair.conv.kernel_mask
    # 400 draws of 3 among 15: 80 +- 8 each (square root of 400 * 0.2 * 0.8); 4 deviations
    assert 48 < counts.min() <= counts.max() < 112


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
    ],
)
def test_after_a_step_weights_and_momentum_are_zero_outside(optimizer):
    pair = masked()
    stepping = optimizer(pair.parameters())
    for _ in range(2):
        stepping.zero_grad()
        pair(torch.randn(2, 5, 2, 4, 3)).backward()
        stepping.step()
        assert outside(pair, pair.conv.weight, "conv").any()  # gradients reach inactive kernels, too
        mask_weights(pair, stepping)
    for layer, weight in (("conv", pair.conv.weight), ("up", pair.up.weight)):
        assert not outside(pair, weight, layer).any()
        remembered = [value for value in stepping.state[weight].values() if value.shape == weight.shape]
        assert remembered
        assert all(not outside(pair, value, layer).any() and value.any() for value in remembered)
    assert stepping.state[pair.conv.bias]


def test_layers_of_any_network_can_be_made_sparse():
    torch.manual_seed(0)
    model = create_model("unet_s", in_channels=1, num_classes=2, width=4)
    layers = [name for name, layer in model.decoder.named_modules(prefix="decoder") if isinstance(layer, nn.Conv3d)]
    add_masks(model, layers, 0.5)
    assert list(sparse_weights(model)) == layers
    assert sum(int(mask.sum()) for _, mask in sparse_weights(model).values()) == sum(
        mask.numel() // 2 for _, mask in sparse_weights(model).values()
    )
    model(torch.randn(1, 1, 8, 8, 16)).sum().backward()


def test_masks_need_no_memory_on_the_meta_device():
    with torch.device("meta"):
        pair = Pair()
        add_masks(pair, ["conv", "up"], 0.8)
    assert pair.conv.kernel_mask.is_meta
    assert pair.conv.kernel_mask.shape == (3, 5)


def decoder_convs(model: nn.Module) -> list[str]:
    return [name for name, layer in model.decoder.named_modules(prefix="decoder") if isinstance(layer, nn.Conv3d)]


def sparse_unet(sparsity: float = 0.5) -> nn.Module:
    torch.manual_seed(0)
    model = create_model("unet_s", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2))
    add_masks(model, decoder_convs(model), sparsity)
    return model


def sparse_e2enet() -> nn.Module:
    torch.manual_seed(0)
    return create_model("e2enet", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2), sparsity=0.5)


@pytest.mark.parametrize("build", [sparse_unet, sparse_e2enet])
def test_gradients_of_inactive_kernels_are_those_of_pytorchs_own_operations(build):
    x, found = torch.randn(1, 1, 8, 24, 16, generator=torch.Generator().manual_seed(1)), []
    for plain in (True, False):
        model = build()
        if plain:
            with plain_forms():
                model(x).square().mean().backward()
        else:
            model(x).square().mean().backward()
        found.append({name: (weight.grad, mask) for name, (weight, mask) in sparse_weights(model).items()})
    plain_gradients, gradients = found
    assert len(gradients) > 3
    for name, (gradient, mask) in gradients.items():
        expected = plain_gradients[name][0]
        assert expected[~mask].any(), name
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_gradients_can_be_masked_and_summed_by_kernel():
    pair = masked()
    pair(torch.randn(2, 5, 2, 4, 3)).backward()
    dense = {name: weight.grad.clone() for name, (weight, _) in sparse_weights(pair).items()}
    strengths = gradient_strength(pair)
    for name, gradient in dense.items():
        torch.testing.assert_close(strengths[name], gradient.abs().sum(dim=(2, 3, 4)))
    mask_gradients(pair)
    for name, (weight, mask) in sparse_weights(pair).items():
        assert not weight.grad[~mask].any()
        assert torch.equal(weight.grad[mask], dense[name][mask])
    pair.zero_grad(set_to_none=True)
    mask_gradients(pair)
    assert gradient_strength(pair) == {}


def test_a_network_is_sparse_if_any_kernel_is_inactive():
    assert [is_sparse(network) for network in (Pair(), masked(0.0), masked(0.8))] == [False, False, True]


def test_masks_are_copied_from_network_to_network():
    source, target = masked(), masked(0.3)
    before = target.conv.kernel_mask
    copy_masks(source, target)
    assert target.conv.kernel_mask is before
    assert all(
        torch.equal(mask, same)
        for (_, mask), (_, same) in zip(sparse_weights(source).values(), sparse_weights(target).values(), strict=True)
    )


def test_a_network_that_was_made_sparse_is_built_anew_from_its_weights():
    trained = sparse_unet()
    fresh = create_model("unet_s", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2))
    restore_masks(fresh, trained.state_dict())
    assert list(sparse_weights(fresh)) == list(sparse_weights(trained))
    fresh.load_state_dict(trained.state_dict())
    assert all(not weight[~mask].any() for weight, mask in sparse_weights(fresh).values())
    with torch.no_grad():
        fresh.decoder[0][0].conv.kernel_mask.fill_(True)
    assert not trained.decoder[0][0].conv.kernel_mask.all()  # a copy


def test_masks_that_fit_no_layer_are_left_to_the_loading():
    pair = Pair()
    weights = {"conv.kernel_mask": torch.ones(3, 4, dtype=torch.bool), "other.kernel_mask": torch.ones(1, 1).bool()}
    restore_masks(pair, weights)
    assert not sparse_weights(pair)
    with pytest.raises(RuntimeError, match=r"conv\.kernel_mask"):
        pair.load_state_dict({**pair.state_dict(), **weights})


def test_after_step_masks_any_network_with_sparse_layers():
    model = sparse_unet()
    with torch.no_grad():
        for weight, _ in sparse_weights(model).values():
            weight.fill_(1.0)
    model.after_step()
    assert all(torch.equal(weight[:, :, 0, 0, 0] > 0, mask) for weight, mask in sparse_weights(model).values())
    assert model.sparse_layers() == model.fusion_nodes() == []  # it names none itself

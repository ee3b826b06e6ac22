from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import Network, create_model
from voxelseg.nets.network import check_choice, check_shares, planned_kernels, planned_steps, positive_integers


class Identity(Network):
    """Returns its input, and with deep supervision every second voxel of it."""

    def __init__(self, image_size: tuple[int, int, int] | None = None) -> None:
        super().__init__([(1, 1, 1), (2, 2, 2)], divisor=(2, 4, 4), in_channels=1, image_size=image_size)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.check_input(x)
        self.sizes.append(tuple(x.shape[2:]))
        return [x, x[..., ::2, ::2, ::2]] if self.deep_supervision else x


def test_inputs_of_any_size_are_padded_and_outputs_cropped():
    model, x = Identity(), torch.randn(2, 1, 3, 5, 8)
    outputs = model.forward_any_size(x)
    assert model.sizes == [(4, 8, 8)]
    torch.testing.assert_close(outputs[0], x)
    torch.testing.assert_close(outputs[1], x[..., ::2, ::2, ::2])
    model.deep_supervision = False
    torch.testing.assert_close(model.forward_any_size(x), x)


def test_an_input_that_fits_is_not_padded():
    model, x = Identity(), torch.randn(1, 1, 4, 8, 8)
    assert model.forward_any_size(x)[0] is not None
    assert model.sizes == [(4, 8, 8)]


def test_a_single_voxel_at_the_lowest_resolution_is_doubled():
    model = Identity()
    model.forward_any_size(torch.randn(1, 1, 1, 1, 1))
    assert model.sizes == [(2, 4, 8)]


def test_a_network_for_one_size_takes_smaller_inputs_padded_and_refuses_larger_ones():
    model = Identity(image_size=(4, 8, 8))
    assert model.forward_any_size(torch.randn(1, 1, 2, 8, 7))[0].shape == (1, 1, 2, 8, 7)
    assert model.sizes == [(4, 8, 8)]
    with pytest.raises(DataError, match=r"takes \(4, 8, 8\) voxels only.*image_size"):
        model.forward_any_size(torch.randn(1, 1, 4, 8, 9))
    with pytest.raises(DataError, match=r"D, H, W = \(2, 8, 8\).*was built for \(4, 8, 8\)"):
        model(torch.randn(1, 1, 2, 8, 8))


@pytest.mark.parametrize("name", ["mednext_xs", "unet_s"])
def test_real_networks_take_odd_sizes(name):
    torch.manual_seed(0)
    model = create_model(name, in_channels=1, num_classes=2, width=4, deep_supervision=True)
    outputs = model.forward_any_size(torch.randn(1, 1, 9, 20, 17))
    expected = [tuple(-(-n // step) for n, step in zip((9, 20, 17), s, strict=True)) for s in model.output_strides]
    assert [tuple(output.shape[2:]) for output in outputs] == expected


def test_parameters_that_encode_are_said_by_every_network():
    class Silent(Network):
        def __init__(self) -> None:
            super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
            self.layer = nn.Conv3d(1, 1, 1)

    with pytest.raises(NotImplementedError, match="Silent"):
        Silent().encoder_parameters()


TWO, THICK = (2, 2, 2), (1, 2, 2)


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        ((TWO,) * 4, (TWO,) * 4),
        ((TWO,) * 5, (TWO,) * 4),
        ((TWO,) * 2, (TWO,) * 4),  # a patch of 16 voxels: halved to 4 by the plan, to 1 by the network
        ((TWO, TWO, TWO, THICK), (TWO,) * 4),  # D is a little shorter than H and W
        ((THICK, TWO, TWO, THICK, THICK), (THICK, TWO, TWO, THICK)),  # thick slices, ACDC's plan
        ((TWO, THICK, THICK, THICK), (TWO, THICK, THICK, THICK)),  # few slices
        ((THICK, THICK, THICK), (THICK, THICK, THICK, THICK)),  # fewer levels: in plane as published
        ((), ((1, 1, 1),) * 4),  # a patch too small to be halved
    ],
)
def test_a_published_network_gives_way_to_a_plan_only_along_thick_or_few_slices(plan, steps):
    assert planned_steps(((1, 1, 1), *plan), 4) == steps


def test_kernels_are_flat_where_the_plan_has_flat_ones():
    plan = ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert planned_kernels(plan, 2, 5) == ((1, 5, 5), (1, 5, 5))
    assert planned_kernels(plan, 4, 7) == ((1, 7, 7), (1, 7, 7), (7, 7, 7), (7, 7, 7))


@pytest.mark.parametrize("values", [(1, 2.0), (1, True), (0, 1), (), 3, (1, 2, 3)])
def test_lists_that_are_not_as_many_positive_integers_as_wanted_are_refused(values):
    with pytest.raises(ConfigError, match=r"depths = .*: expected 2 integers of at least 1"):
        positive_integers("depths", values, number=2)


def test_shares_and_choices_say_what_is_wrong():
    config = SimpleNamespace(dropout=1, upsampling="linear")
    with pytest.raises(ConfigError, match="dropout = 1: expected a number from 0 up to but not including 1"):
        check_shares(config, "dropout")
    with pytest.raises(ConfigError, match="upsampling = 'linear': expected one of 'deconv', 'nearest'"):
        check_choice(config, "upsampling", "deconv", "nearest")

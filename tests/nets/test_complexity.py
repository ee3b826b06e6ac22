"""Counts against numbers worked out by hand, the specification's, and what the papers print."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import DataError
from voxelseg.nets import NETWORKS, Network, create_model
from voxelseg.nets.complexity import CONVENTIONS, cost_in_papers, count, operations
from voxelseg.nets.mednext import MedNeXtConfig
from voxelseg.ops.dispatch import plain_forms


class Everything(Network):
    """One operation of each kind that is counted."""

    def __init__(self, spatial_dims: int = 3) -> None:
        self.config = MedNeXtConfig(in_channels=2, num_classes=3)  # for in_channels
        super().__init__([(1,) * spatial_dims], divisor=(2,) * spatial_dims, in_channels=2)
        conv, transposed = (nn.Conv3d, nn.ConvTranspose3d) if spatial_dims == 3 else (nn.Conv2d, nn.ConvTranspose2d)
        self.down = conv(2, 4, 3, stride=2, padding=1)
        self.depthwise = conv(4, 4, 3, padding=1, groups=4, bias=False)
        self.norm = nn.GroupNorm(4, 4)
        self.linear = nn.Linear(4, 4)
        self.up = transposed(4, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        x = F.relu(self.norm(self.depthwise(self.down(x))))
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.up(F.layer_norm(tokens.transpose(1, 2).reshape(x.shape), x.shape[-1:]))


def test_every_kind_of_operation_is_counted():
    # At 2 x 3 x 4 = 24 coarse voxels: 2 * 4 * 27, 4 * 27, 4 * 4 for each, twice 24 * 4 for each in the attention;
    # the transposed convolution has 8 taps, which each of 24 coarse voxels sends to its own 8 fine ones.
    down, depthwise, linear, attention, up = 24 * 216, 24 * 108, 24 * 16, 24 * 24 * 4, 24 * 4 * 3 * 8
    model = Everything()
    assert [(one.kind, one.macs) for one in operations(model, (4, 6, 8))] == [
        ("convolution", down),
        ("convolution", depthwise),
        ("norm", 0),
        ("activation", 0),
        ("linear", linear),
        ("attention", attention),
        ("attention", attention),
        ("layer_norm", 0),
        ("convolution", up),
    ]
    counted = {name: convention(operations(model, (4, 6, 8))) for name, convention in CONVENTIONS.items()}
    macs = down + depthwise + linear + 2 * attention + up
    norm = layer_norm = activation = 24 * 4
    assert counted == {
        "macs": macs,
        "fvcore": macs + 5 * (norm + layer_norm),
        "ptflops": down + depthwise + linear + 8 * up + 24 * 4 + 192 * 3 + 2 * norm + activation,  # two biases
        "thop": down + depthwise + linear + 8 * up + 4 * norm + 2 * layer_norm,
        "e2enet": 2 * (down + depthwise + linear + 8 * up),
    }
    # (216 + 4) + 108 + (4 + 4) + (16 + 4) + (96 + 3) parameters
    assert count(model, (4, 6, 8)).parameters == 455
    assert count(model, (4, 6, 8)).macs == macs


def test_networks_of_slices_are_counted():
    # 12 coarse pixels: 2 * 4 * 9, 4 * 9, 4 * 4, twice 12 * 4, and 4 * 3 * 4
    assert count(Everything(2), (6, 8)).macs == 12 * (72 + 36 + 16 + 96 + 48)


def test_counting_leaves_the_network_as_it_is_wherever_it_lies_and_in_whatever_state():
    model = create_model("mednext_xs", in_channels=1, num_classes=2, width=4, blocks=1, deep_supervision=True)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    first = count(model, (16, 32, 16))
    with plain_forms():
        assert count(model.eval(), (16, 32, 16)) == first
    assert count(model.to("meta"), (16, 32, 16)) == first
    assert not model.training
    assert before.keys() == model.state_dict().keys()
    model.deep_supervision = False
    other = count(model, (16, 32, 16))
    assert other.parameters == first.parameters
    # the four lower heads: 2 classes times 4, 8, 16, ... channels at 1/8, 1/64, ... of the voxels
    voxels = 16 * 32 * 16
    assert first.macs - other.macs == sum(2 * 4 * 2**level * voxels // 8**level for level in range(1, 5))


def test_the_copy_that_is_observed_forgets_a_loss_of_the_last_step():
    model = create_model("unet_s", in_channels=1, num_classes=2, width=4)
    model.auxiliary_loss = model(torch.zeros(1, 1, 8, 16, 8)).mean()  # has a graph: cannot be copied
    assert count(model, (8, 16, 8)).macs > 0
    assert model.auxiliary_loss is not None


def test_a_size_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"Pad the input to \(16, 16, 32\)"):
        count(create_model("mednext_xs", in_channels=1, num_classes=2, width=4), (16, 16, 20))


class Chain(Network):
    """Three pointwise convolutions, 1 to 8 to 4 to 2 channels."""

    def __init__(self) -> None:
        self.config = MedNeXtConfig(in_channels=1, num_classes=2)  # for in_channels
        super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
        self.layers = nn.Sequential(nn.Conv3d(1, 8, 1), nn.Conv3d(8, 4, 1), nn.Conv3d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_a_prediction_holds_the_weights_and_the_largest_neighbours_and_training_all():
    # 1 * 8 + 8 + 8 * 4 + 4 + 4 * 2 + 2 = 62 parameters; on 10 x 10 x 10 voxels, 4 bytes a value.
    # Prediction: input, which its caller holds, and the second layer's input and output. Training: all values and four
    # copies of the weights.
    model = Chain()
    assert count(model, (10, 10, 10)).prediction_bytes == 4 * 62 + 4 * 1000 * (1 + 8 + 4)
    assert count(model, (10, 10, 10)).training_bytes == 4 * 4 * 62 + 4 * 1000 * (1 + 8 + 4 + 2)
    assert count(model.half(), (10, 10, 10)).training_bytes == 2 * 4 * 62 + 2 * 1000 * (1 + 8 + 4 + 2)


@pytest.mark.parametrize("name", ["mednext_xs", "e2enet"])
def test_checkpointing_spares_activations(name):
    options = {"in_channels": 1, "num_classes": 2, "width": 4}
    plain, recomputing = (create_model(name, **options, checkpointing=value) for value in (False, True))
    costs = [count(model, (32, 32, 64)) for model in (plain, recomputing)]
    assert costs[1].training_bytes < 0.5 * costs[0].training_bytes
    assert costs[1].macs == costs[0].macs


def test_what_a_transposed_convolution_of_ones_spreads_is_no_product():
    class Spread(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv_transpose3d(self.layers[0](x), x.new_ones(8, 1, 1, 1, 1), stride=2, groups=8)

    assert [one.kind for one in operations(Spread(), (4, 4, 4))] == ["convolution"]


# ------------------------------------------------------------------------------------------------ the specification's


def on_meta(name, *, num_classes, **options):
    with torch.device("meta"):
        return create_model(name, in_channels=1, num_classes=num_classes, **options)


MEDNEXT = [  # parameters without and with the heads of deep supervision, 10^9 multiply-accumulates likewise, fvcore
    ("mednext_s", 3, 5_551_311, 5_564_807, 128.05, 128.36, 131.1),
    ("mednext_s", 5, 5_980_943, 5_994_439, 166.32, 166.63, 169.3),
    ("mednext_b", 3, 10_526_703, 10_540_199, 167.47, 167.78, 170.5),
    ("mednext_b", 5, 10_956_335, 10_969_831, 205.74, 206.05, 208.8),
    ("mednext_m", 3, 17_549_359, 17_562_855, 244.36, 244.67, 248.5),
    ("mednext_m", 5, 18_261_231, 18_274_727, 304.46, 304.77, 308.6),
    ("mednext_l", 3, 61_779_663, 61_793_159, 495.35, 495.66, 499.7),
    ("mednext_l", 5, 62_993_295, 63_006_791, 559.66, 559.97, 564.0),
]


@pytest.mark.parametrize(("name", "kernel", "parameters", "with_heads", "gmac", "gmac_with_heads", "fvcore"), MEDNEXT)
def test_mednext_costs_what_the_authors_does(name, kernel, parameters, with_heads, gmac, gmac_with_heads, fvcore):
    model = on_meta(name, num_classes=14, kernel_size=kernel, deep_supervision=True)
    one_head = cost_in_papers(on_meta(name, num_classes=14, kernel_size=kernel), (128, 128, 128), convention="macs")
    all_heads = cost_in_papers(model, (128, 128, 128), convention="fvcore")
    # Theirs has one parameter more, a dummy for checkpointing.
    assert (one_head[0], all_heads[0]) == (parameters - 1, with_heads - 1)
    assert one_head[1] / 1e9 == pytest.approx(gmac, abs=0.006)
    assert all_heads[1] / 1e9 == pytest.approx(fvcore, abs=0.06)
    assert all_heads[2] / 1e9 == pytest.approx(gmac_with_heads, abs=0.006)


UXNET = [  # 10^6 parameters, 10^9 multiply-accumulates and ptflops
    (5, {}, 53.006069, 577.40, 631.8),
    (8, {}, 53.006216, 577.53, 631.9),
    (16, {}, 53.006608, 577.87, 632.3),
    (5, {"kernel_size": 3}, 52.551, 572.95, 627.3),
    (5, {"kernel_size": 5}, 52.692, 574.33, 628.7),
    (5, {"kernel_size": 9}, 53.562, 582.85, 637.2),
    (5, {"kernel_size": 11}, 54.429, 591.33, 645.7),
    (5, {"kernel_size": 13}, 55.676, 603.55, 657.9),
    (5, {"scaling": "mlp"}, 56.128, 584.93, 639.3),
    (5, {"scaling": "none"}, 52.987, 577.29, 631.6),
    (5, {"depthwise": False}, 186.858, 900.31, 954.7),
]


@pytest.mark.parametrize(("num_classes", "options", "parameters", "gmac", "ptflops"), UXNET)
def test_uxnet_costs_what_the_authors_does(num_classes, options, parameters, gmac, ptflops):
    model = on_meta("uxnet", num_classes=num_classes, **options)
    found = cost_in_papers(model, (96, 96, 96), convention="ptflops")
    assert found[0] / 1e6 == pytest.approx(parameters, abs=6e-4)
    assert found[1] / 1e9 == pytest.approx(ptflops, abs=0.06)
    assert found[2] / 1e9 == pytest.approx(gmac, abs=0.006)


E2ENET = [  # sparsity, input channels and voxels per axis, classes, 10^9 operations, 10^6 parameters
    (0.0, 1, 128, 16, 3069.55, 23.8991),
    (0.7, 1, 128, 16, 1064.82, 11.2520),
    (0.8, 1, 128, 16, 778.74, 9.4454),
    (0.9, 1, 128, 16, 492.28, 7.6386),
    (0.0, 1, 96, 14, 1294.74, 23.8978),
    (0.9, 1, 96, 14, 207.46, 7.6373),
    (0.7, 4, 128, 4, 1067.06, 11.2454),
]


@pytest.mark.parametrize(("sparsity", "in_channels", "size", "num_classes", "gflops", "parameters"), E2ENET)
def test_e2enet_costs_what_its_paper_prints(sparsity, in_channels, size, num_classes, gflops, parameters):
    with torch.device("meta"):
        model = create_model("e2enet", in_channels=in_channels, num_classes=num_classes, sparsity=sparsity)
    found = cost_in_papers(model, (size,) * 3, convention="e2enet")
    assert found[0] / 1e6 == pytest.approx(parameters, abs=6e-5)
    assert found[1] / 1e9 == pytest.approx(gflops, abs=0.006)


def test_e2enet_dense_is_counted_alike_from_its_formula_and_from_its_operations():
    # The formula has one more for each output value of the fusion nodes. True cost at 128^3: 2025 G, two per product.
    model = on_meta("e2enet", num_classes=16, sparsity=0.0, deep_supervision=True)
    _, formula, macs = cost_in_papers(model, (128, 128, 128), convention="e2enet")
    observed = CONVENTIONS["e2enet"](operations(model, (128, 128, 128)))
    assert observed < formula < 1.003 * observed
    assert 2 * macs / 1e9 == pytest.approx(2025, abs=1)


@pytest.mark.parametrize(("name", "cost"), [(name, cost) for name, entry in NETWORKS.items() for cost in entry.printed])
def test_printed_costs_are_met_or_explained(name, cost):
    with torch.device("meta"):
        model = create_model(name, in_channels=cost.in_channels, num_classes=cost.num_classes, **cost.options)
    parameters, counted, _ = cost_in_papers(model, cost.size, convention=cost.convention)
    pairs = [(cost.parameters_m, parameters / 1e6), (cost.gflops, counted / 1e9)]
    assert cost.note or all(ours == pytest.approx(printed, rel=0.02) for printed, ours in pairs if printed is not None)


def test_inference_mode_changes_no_count():
    model = create_model("unet_s", width=4)
    expected = count(model, (16, 16, 24))
    with torch.inference_mode():
        assert count(model, (16, 16, 24)) == expected


@pytest.mark.parametrize("size", [(0, 0, 0), (16, 16, -16), (16, 16, 16.0)])
def test_sizes_without_voxels_are_refused(size):
    with pytest.raises(DataError, match="expected a positive integer for each axis"):
        count(create_model("unet_s", width=4), size)

import itertools
from math import floor, prod

import pytest
import torch
from torch import Tensor

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.cotr import CoTr, DeformableAttention, deformable_attention
from voxelseg.nets.complexity import cost_in_papers

TINY = {"width": 2, "layers": 1, "heads": 3, "points": 2}


def tiny(**options: object) -> CoTr:
    torch.manual_seed(0)
    return create_model("cotr", **{"in_channels": 1, "num_classes": 2, **TINY, **options})


@pytest.mark.parametrize(("classes", "parameters"), [(16, 41_873_920), (14, 41_872_504)])
def test_the_published_network_has_the_printed_size(classes, parameters):
    with torch.device("meta"):
        model = create_model("cotr", in_channels=1, num_classes=classes, deep_supervision=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters  # 41.87 M in print


@pytest.mark.parametrize(
    ("size", "classes", "gmacs", "operations", "after_upsampling"),
    [(128, 16, 666.0, 1506.8, 1510.1), (96, 14, 280.9, 635.6, 636.7)],  # 1510.53 and 636.94 in print
)
def test_the_published_network_has_the_costs_that_its_docstring_names(
    size, classes, gmacs, operations, after_upsampling
):
    with torch.device("meta"):
        model = create_model("cotr", in_channels=1, num_classes=classes, deep_supervision=True)
    _, counted, macs = cost_in_papers(model, (size,) * 3, convention="e2enet")
    assert (round(macs / 1e9, 1), round(counted / 1e9, 1)) == (gmacs, operations)
    # Behind the upsampling the head has 64 * K products at the other 3 of 4 voxels, too.
    moved = 2 * 64 * classes * (size**3 * 3 // 4)
    assert round((counted + moved) / 1e9, 1) == after_upsampling


def test_outputs_follow_the_decoder_stages_and_the_same_logits_come_without_them():
    model = tiny(deep_supervision=True).eval()
    assert model.divisor == (8, 16, 16)
    assert model.output_strides == [(1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8)]
    x = torch.randn(2, 1, 8, 16, 32)
    outputs = model(x)
    assert [tuple(output.shape[2:]) for output in outputs] == [(8, 16, 32), (8, 8, 16), (4, 4, 8), (2, 2, 4)]
    model.deep_supervision = False
    torch.testing.assert_close(model(x), outputs[0])


def test_the_output_head_before_upsampling_gives_the_published_logits():
    # Published: upsampling, then the pointwise head. Both are linear, and interpolation has weights that sum to 1.
    features, head = torch.randn(1, 4, 3, 5, 6), torch.nn.Conv3d(4, 3, 1)
    up = torch.nn.Upsample(scale_factor=(1, 2, 2), mode="trilinear")
    torch.testing.assert_close(up(head(features)), head(up(features)))


def voxel_or_zero(volume: Tensor, *index: int) -> Tensor:
    inside = all(0 <= i < size for i, size in zip(index, volume.shape[1:], strict=True))
    return volume[:, index[0], index[1], index[2]] if inside else torch.zeros(len(volume), dtype=volume.dtype)


def sampled(volume: Tensor, position: Tensor) -> Tensor:
    """Value (C,) of volume (C, D, H, W) at a position along D, H, W between 0 and 1, corner by corner."""
    point = [float(at) * size - 0.5 for at, size in zip(position, volume.shape[1:], strict=True)]
    total = torch.zeros(len(volume), dtype=volume.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        index = [floor(at) + step for at, step in zip(point, corner, strict=True)]
        share = prod(1 - abs(at - i) for at, i in zip(point, index, strict=True))
        total += share * voxel_or_zero(volume, *index)
    return total


def test_deformable_attention_is_the_weighted_sum_of_interpolated_values():
    generator = torch.Generator().manual_seed(0)
    batch, queries, heads, levels, points, channels = 2, 3, 2, 2, 3, 4
    sizes = [(2, 3, 4), (1, 2, 5)]
    values = [torch.randn(batch, heads, channels, *size, generator=generator).double() for size in sizes]
    positions = torch.rand(batch, queries, heads, levels, points, 3, generator=generator).double() * 1.4 - 0.2
    weights = torch.rand(batch, queries, heads, levels, points, generator=generator).double()
    expected = torch.zeros(batch, queries, heads, channels, dtype=torch.float64)
    for b, q, m, level, p in itertools.product(*map(range, (batch, queries, heads, levels, points))):
        expected[b, q, m] += weights[b, q, m, level, p] * sampled(values[level][b, m], positions[b, q, m, level, p])
    torch.testing.assert_close(deformable_attention(values, positions, weights), expected.flatten(2))


def test_a_token_first_looks_along_the_axes_around_its_own_position():
    attention = DeformableAttention(12, heads=6, points=2).double()
    torch.nn.init.zeros_(attention.weights.weight)  # every position counts 1 / (2 levels * 2 points)
    for linear in (attention.values, attention.out):
        torch.nn.init.eye_(linear.weight)
    size = torch.Size((5, 6, 7))
    tokens = torch.zeros(1, 2 * size.numel(), 12, dtype=torch.float64)
    volume = tokens[:, : size.numel()].view(*size, 12)
    volume[3, 3, 3] = 1.0  # one voxel behind (2, 3, 3) along D
    volume[2, 3, 1] = 1.0  # two voxels before it along W
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in size]
    centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    out = attention(torch.zeros_like(tokens), tokens, torch.cat((centres, centres)), [size, size])
    query = (2 * 6 + 3) * 7 + 3
    # Heads look along +D, +H, +W, -D, -H, -W, with two of the twelve channels each.
    torch.testing.assert_close(out[0, query].tolist(), [0.25, 0.25, *[0.0] * 8, 0.25, 0.25])


def test_gradients_reach_every_parameter():
    model = tiny(deep_supervision=True, in_channels=3)
    outputs = model(torch.randn(1, 3, 8, 32, 16))
    sum((output * torch.linspace(0, 1, output.numel()).view_as(output)).square().sum() for output in outputs).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_thick_and_few_slices_are_strided_as_planned():
    full, flat = (2, 2, 2), (1, 2, 2)
    options = tiny().config.plan_options
    assert options({}, ((1, 1, 1), full, full, full, full), ())["strides"] == (flat, full, full, full)
    assert options({}, ((1, 1, 1), flat, flat, full, full), ())["strides"] == (flat, flat, full, full)
    model = tiny(strides=(flat, flat, full, full))
    assert model.divisor == (4, 16, 16)
    assert model(torch.randn(1, 1, 4, 32, 16)).shape == (1, 2, 4, 32, 16)


def test_dropout_and_the_width_of_mlps_are_options():
    x = torch.randn(1, 1, 8, 16, 32)
    model = tiny(dropout=0.5).train()
    assert not torch.equal(model(x), model(x))
    model = tiny(dropout=0.0, mlp_ratio=2).train()
    torch.testing.assert_close(model(x), model(x))
    assert model.transformer.layers[0].mlp[0].out_features == 2 * 12


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(8, 32, 16\)"):
        tiny()(torch.zeros(1, 1, 8, 17, 16))


def test_encoder_parameters_are_those_of_convolutions_and_transformer():
    model = tiny()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    encoding = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert encoding == {"stem", "encoder", "transformer"}
    assert next(model.encoder_parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (2, 2, 2)}, "expected 4 steps"),
        ({"heads": 5}, r"a divisor of 6 \* width = 12"),
        ({"dropout": 1}, "from 0 up to but not including 1"),
        ({"dropout": "some"}, "from 0 up to but not including 1"),
        ({"points": 0}, "positive integer"),
        ({"deep_supervision": "no"}, "true or false"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)

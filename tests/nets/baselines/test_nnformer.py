import itertools
from math import prod

import pytest
import torch
from torch import Tensor

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.nnformer import (
    Block,
    NNFormer,
    WindowAttention,
    from_windows,
    into_windows,
    relative_bias,
    window_mask,
)

TINY = {
    "width": 8,
    "depths": (2, 1, 2, 2),
    "heads": (1, 2, 2, 4),
    "decoder_heads": (2, 2, 4),
    "windows": ((2, 3, 2), 2, 2, (1, 2, 2)),
    "drop_path": 0.0,
}


def tiny(**options: object) -> NNFormer:
    torch.manual_seed(0)
    return create_model("nnformer", **{"in_channels": 1, "num_classes": 2, **TINY, **options})


@pytest.mark.parametrize(
    ("deep_supervision", "parameters"),
    [(False, 149_550_376), (True, 150_140_232)],  # 150.14 M in print; the other heads have 32 * 16 * (384 + 768) + 32
)
def test_the_published_network_has_the_printed_size(deep_supervision, parameters):
    with torch.device("meta"):
        model = create_model("nnformer", in_channels=1, num_classes=16, deep_supervision=deep_supervision)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.divisor == (16, 32, 32)


def test_windows_are_boxes_of_the_grid_in_order_and_come_back():
    x = torch.arange(2 * 4 * 6 * 4 * 3).view(2, 4, 6, 4, 3)
    volumes = into_windows(x, (2, 3, 4))
    assert volumes.shape == (2, 4, 24, 3)
    torch.testing.assert_close(volumes[1, 3], x[1, 2:4, 3:6, 0:4].flatten(0, 2))  # along D and H two boxes each
    torch.testing.assert_close(from_windows(volumes, (2, 3, 4), (4, 6, 4)), x)


def positions(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, size)))


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [((4, 6, 4), (2, 3, 2), (1, 1, 1)), ((5, 4, 2), (2, 3, 2), (1, 1, 0)), ((3, 5, 3), (2, 2, 3), (0, 0, 0))],
)
def test_tokens_see_each_other_where_they_share_a_window_without_wrapping_around(size, window, shift):
    # Windows begin at `shift`; what lies before the first one is a window of its own, and padding is not seen.
    padded = [-(-n // length) * length for n, length in zip(size, window, strict=True)]
    mask = window_mask(size, window, shift, torch.device("cpu"))
    grid = torch.arange(prod(padded)).view(1, *padded, 1).roll([-step for step in shift], (1, 2, 3))
    places = into_windows(grid, window)[0, :, :, 0]  # (V, N): number of the token in the padded grid
    found = {
        (int(places[v, i]), int(places[v, j]))
        for v, i, j in itertools.product(range(len(places)), *(range(prod(window)),) * 2)
        if mask[v, i, j]
    }
    tokens = positions(tuple(padded))
    real = {number for number, at in enumerate(tokens) if all(a < n for a, n in zip(at, size, strict=True))}
    groups = [tuple((a - step) // length for a, step, length in zip(at, shift, window, strict=True)) for at in tokens]
    expected = {(a, b) for a, b in itertools.product(real, real) if groups[a] == groups[b]}
    assert {(a, b) for a, b in found if a in real} == expected


@pytest.mark.parametrize("window", [(2, 3, 2), (2, 2, 1)])
def test_position_bias_depends_on_the_offset(window):
    table = torch.randn(2, 3, 5, 3)  # for windows of up to 2, 3, 2 tokens
    bias = relative_bias(table, window)
    tokens = positions(window)
    for (i, a), (j, b) in itertools.product(enumerate(tokens), repeat=2):
        d, h, w = (p - q for p, q in zip(a, b, strict=True))
        assert torch.equal(bias[:, i, j], table[:, d + 1, h + 2, w + 1])


def slow_attention(layer: WindowAttention, x: Tensor, query: Tensor | None, shift: tuple[int, ...]) -> Tensor:
    """Token by token: softmax over those in the same window, scores with the bias of the offset."""
    size = tuple(x.shape[1:4])
    parts = layer.project(x) if query is None else torch.cat((query, layer.project(x)), dim=-1)
    tokens, out = positions(size), torch.zeros_like(x)
    window = [min(length, n) for length, n in zip(layer.window, size, strict=True)]
    group = {at: tuple((a - s) // n for a, s, n in zip(at, shift, window, strict=True)) for at in tokens}
    channels = x.shape[-1] // layer.heads
    for at, head in itertools.product(tokens, range(layer.heads)):
        seen = [other for other in tokens if group[other] == group[at]]
        q, keys, values = (
            torch.stack([parts[0, *one, part * x.shape[-1] + head * channels :][:channels] for one in places])
            for part, places in enumerate(([at], seen, seen))
        )
        middle = [n - 1 for n in layer.window]
        bias = [layer.table[head, *(a - b + m for a, b, m in zip(at, other, middle, strict=True))] for other in seen]
        scores = (q @ keys.T)[0] / channels**0.5 + torch.stack(bias)
        out[0, *at, head * channels : (head + 1) * channels] = scores.softmax(0) @ values
    return layer.out(out)


@pytest.mark.parametrize(
    ("size", "shift"),
    [
        ((4, 6, 4), (1, 1, 1)),  # whole windows that move
        ((3, 4, 5), (1, 1, 1)),  # padded to 4, 6, 6
        ((2, 4, 1), (0, 1, 0)),  # D fits the window, which shrinks along W: nothing moves there
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_attention_in_moved_windows_is_what_a_loop_over_tokens_gives(size, shift, skip):
    torch.manual_seed(0)
    layer = WindowAttention(4, heads=2, window=(2, 3, 2), shifted=True, skip=skip).double()
    torch.nn.init.normal_(layer.table)
    x, query = torch.randn(2, 1, *size, 4).double()
    query = query if skip else None
    torch.testing.assert_close(layer(x, query), slow_attention(layer, x, query, shift))


def test_samples_of_a_batch_do_not_see_each_other():
    layer = WindowAttention(4, heads=2, window=(2, 2, 2), shifted=True).double()
    x = torch.randn(3, 3, 4, 5, 4).double()
    torch.testing.assert_close(layer(x), torch.cat([layer(one.unsqueeze(0)) for one in x]))


def test_half_of_the_windows_move_and_only_the_decoder_begins_with_skip_attention():
    model = tiny(depths=(3, 2, 1, 2))
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    assert [block.attention.shifted for block in model.encoder[0]] == [False, True, False]
    assert [block.attention.project.out_features // 8 for block in model.decoder[0]] == [2, 3, 3]  # queries are given
    assert len(blocks) == 3 + 2 + 1 + 2 + 3 + 2 + 1


def test_outputs_follow_the_decoder_levels_and_the_same_logits_come_without_them():
    model = tiny(deep_supervision=True).eval()
    assert model.divisor == (16, 32, 32)
    assert model.output_strides == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]
    x = torch.randn(2, 1, 16, 32, 64)
    outputs = model(x)
    assert [tuple(output.shape) for output in outputs] == [(2, 2, 16, 32, 64), (2, 2, 8, 16, 32), (2, 2, 4, 8, 16)]
    model.deep_supervision = False
    torch.testing.assert_close(model(x), outputs[0])


@pytest.mark.parametrize("patch_size", [(1, 2, 4), (4, 4, 4)])
def test_patches_have_one_two_or_four_voxels_per_axis(patch_size):
    model = tiny(patch_size=patch_size, strides=((1, 2, 2), 2, (2, 2, 1))).eval()
    assert model.divisor == tuple(size * step for size, step in zip(patch_size, (4, 8, 4), strict=True))
    size = tuple(2 * step for step in model.divisor)
    assert model.embedding(torch.zeros(1, 1, *size)).shape[1:4] == (8, 16, 8)
    assert model(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_reach_every_parameter(channels):
    model = tiny(deep_supervision=True, in_channels=channels).train()
    outputs = model(torch.randn(2, channels, 32, 32, 64))
    sum((output * torch.linspace(0, 1, output.numel()).view_as(output)).square().sum() for output in outputs).backward()
    assert [key for key, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_residual_branches_are_left_out_more_often_the_deeper_they_lie():
    model = tiny(drop_path=0.3)
    encoder = [block.drop_path for stage in model.encoder for block in stage]
    assert encoder == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    decoder = [block.drop_path for stage in reversed(model.decoder) for block in stage]
    assert decoder == pytest.approx([0, 0.075, 0.15, 0.225, 0.3])
    block, x = model.encoder[3][1], torch.randn(8, 1, 2, 2, 64)
    unchanged = [torch.equal(after, before) for after, before in zip(block.train()(x), x, strict=True)]
    torch.testing.assert_close(block.eval()(x), block(x))
    assert len(unchanged) == 8
    assert not torch.equal(block.train()(x), block(x))


def test_thick_and_few_slices_are_strided_as_planned():
    full, flat = (2, 2, 2), (1, 2, 2)
    planned = tiny().config.plan_options
    published = {"patch_size": (2, 4, 4), "strides": (full, full, full)}
    assert planned({}, ((1, 1, 1), full, full, full, full, full), ()) == published
    thick = planned({}, ((1, 1, 1), flat, flat, full, full, flat), ())
    assert thick == {"patch_size": (1, 4, 4), "strides": (full, full, flat)}
    assert tiny(**thick).divisor == (4, 32, 32)


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(16, 64, 32\)"):
        tiny()(torch.zeros(1, 1, 16, 33, 32))


def test_encoder_parameters_are_those_down_to_the_lowest_level():
    model = tiny()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    encoding = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert encoding == {"embedding", "encoder", "norms", "down"}
    assert next(model.encoder_parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 9}, "an even number"),
        ({"heads": (3, 2, 2, 4)}, "divisors of the channels"),
        ({"decoder_heads": (1, 3, 2)}, "divisors of the channels"),
        ({"depths": (2, 2, 2)}, "expected 4 integers"),
        ({"strides": (2, 2)}, "expected 3 entries"),
        ({"windows": 4}, "one entry per level"),
        ({"windows": (4, 4, 4)}, "expected 4 entries"),
        ({"patch_size": (2, 3, 4)}, "1, 2 or 4"),
        ({"drop_path": 1}, "from 0 up to"),
        ({"deep_supervision": "no"}, "true or false"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)

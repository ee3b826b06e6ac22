import itertools

import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.medformer import MedFormer, PatchMerging, SemanticMap, attend_both_ways

TINY = {
    "widths": (4, 8, 12, 16, 20),
    "convs": (1, 1, 0, 0),
    "decoder_convs": (1, 1, 1, 0),
    "attentions": (1, 2, 1),
    "decoder_attentions": (2, 1),
    "heads": (2, 2, 4),
    "map_tokens": 5,
    "expansion": 2,
    "fusion_width": 12,
    "fusion_layers": 1,
    "fusion_heads": 3,
}


def tiny(**options: object) -> MedFormer:
    torch.manual_seed(0)
    return create_model("medformer", **{"in_channels": 1, "num_classes": 2, **TINY, **options})


def test_the_published_network_has_the_printed_size():
    # In the code also, without effect: maps joined for the two upper levels, 128 * 64 + 64 * 32; the map's output layer
    # of the last attention block, 128 * 128, and half of its pointwise convolution, 384 * 128; a bias of 320.
    with torch.device("meta"):
        model = create_model("medformer", in_channels=1, num_classes=16)
    without_effect = 128 * 64 + 64 * 32 + 128 * 128 + 384 * 128 + 320
    assert without_effect == 76_096
    assert sum(parameter.numel() for parameter in model.parameters()) == 39_542_512  # 39.59 M in print
    assert model.divisor == (16, 16, 16)


def test_voxels_and_tokens_attend_by_the_same_scores():
    generator = torch.Generator().manual_seed(0)
    batch, heads, voxels, tokens, channels = 2, 2, 6, 3, 4
    query, value = torch.randn(2, batch, heads, voxels, channels, generator=generator).double()
    map_query, map_value = torch.randn(2, batch, heads, tokens, channels, generator=generator).double()
    seen, gathered = attend_both_ways(query, value, map_query, map_value)
    for b, h in itertools.product(range(batch), range(heads)):
        score = [[float(query[b, h, i] @ map_query[b, h, j]) / 2 for j in range(tokens)] for i in range(voxels)]
        scores = torch.tensor(score, dtype=torch.float64)
        for i in range(voxels):
            share = scores[i].exp() / scores[i].exp().sum()
            torch.testing.assert_close(seen[b, h, i], sum(share[j] * map_value[b, h, j] for j in range(tokens)))
        for j in range(tokens):
            share = scores[:, j].exp() / scores[:, j].exp().sum()
            torch.testing.assert_close(gathered[b, h, j], sum(share[i] * value[b, h, i] for i in range(voxels)))
    assert attend_both_ways(query, None, map_query, map_value)[1] is None


def test_a_map_holds_weighted_means_of_features():
    layer, x = SemanticMap(3, 4).double(), torch.randn(1, 3, 2, 3, 5).double()
    features, weights = layer.features(x)[0].flatten(1), layer.weights(x)[0].flatten(1)
    expected = torch.stack([(features * row.softmax(0)).sum(1) for row in weights])
    torch.testing.assert_close(layer(x)[0], expected)


def test_merged_patches_keep_every_voxel():
    merge = PatchMerging(2, 3, stride=(1, 2, 3), kernel=(1, 1, 1))
    merged = []
    merge.reduce.register_forward_pre_hook(lambda _, inputs: merged.append(inputs[0]))
    x = torch.arange(2 * 4 * 4 * 6.0).view(1, 2, 4, 4, 6)
    assert merge(x).shape == (1, 3, 4, 2, 2)
    ((patches,),) = merged  # (12, 4, 2, 2), each channel normalised over its 16 voxels
    assert patches.shape == (12, 4, 2, 2)
    first = torch.stack([x[0, c, :, h::2, w::3] for h, w, c in itertools.product(range(2), range(3), range(2))])
    normed = (first - first.mean((1, 2, 3), keepdim=True)) / first.std((1, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(patches, normed)


def test_the_order_of_a_maps_tokens_does_not_matter():
    model = tiny().eval()
    x, order = torch.randn(1, 1, 16, 32, 16), torch.tensor([3, 1, 4, 0, 2])
    expected = model(x)
    for stage in model.encoder[1:]:
        with torch.no_grad():
            stage.map.weights.weight.copy_(stage.map.weights.weight[order])
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


def test_the_last_block_hands_no_map_on():
    model = tiny()
    layers = [block.attention.map_out for stage in model.attention_decoder for block in stage.attentions]
    assert [layer is not None for layer in layers] == [True, True, False]  # one block below, two above


def test_outputs_are_full_resolution_and_that_of_the_attention_decoder():
    model = tiny(deep_supervision=True).eval()
    assert model.output_strides == [(1, 1, 1), (4, 4, 4)]
    x = torch.randn(2, 1, 16, 32, 48)
    outputs = model(x)
    assert [tuple(output.shape) for output in outputs] == [(2, 2, 16, 32, 48), (2, 2, 4, 8, 12)]
    model.deep_supervision = False
    torch.testing.assert_close(model(x), outputs[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_reach_every_parameter(channels):
    model = tiny(deep_supervision=True, in_channels=channels).train()
    outputs = model(torch.randn(2, channels, 16, 32, 48))
    sum((output * torch.linspace(0, 1, output.numel()).view_as(output)).square().sum() for output in outputs).backward()
    assert [key for key, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_excitation_matters_no_more_than_an_epsilon_since_a_norm_follows():
    bottleneck = tiny().encoder[2].attentions[0].mlp
    x = torch.randn(1, 16, 4, 5, 6)
    expected = bottleneck(x)
    torch.nn.init.normal_(bottleneck.excitation.excite.bias)  # scales channels by other factors
    changed = bottleneck(x)
    assert not torch.equal(changed, expected)
    assert (changed - expected).norm() < 0.01 * expected.norm()


def test_thick_and_few_slices_are_strided_and_filtered_as_planned():
    full, flat, three, thin = (2, 2, 2), (1, 2, 2), (3, 3, 3), (1, 3, 3)
    planned = tiny().config.plan_options
    isotropic = planned({}, ((1, 1, 1), full, full, full, full), (three,) * 5)
    assert isotropic == {"strides": (full,) * 4, "kernels": (three,) * 5}
    thick = planned({}, ((1, 1, 1), flat, full, full), (thin, thin, three, three))
    assert thick == {"strides": (flat, full, full, flat), "kernels": (thin, thin, three, three, three)}
    model = tiny(**thick)
    assert model.divisor == (4, 16, 16)
    assert model(torch.randn(1, 1, 4, 16, 32)).shape == (1, 2, 4, 16, 32)


def test_activations_differ():
    x = torch.randn(1, 1, 16, 16, 32)
    assert not torch.allclose(tiny(activation="gelu")(x), tiny()(x), atol=1e-3)


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(16, 32, 16\)"):
        tiny()(torch.zeros(1, 1, 16, 17, 16))


def test_encoder_parameters_are_those_down_to_the_fused_maps():
    model = tiny()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    encoding = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert encoding == {"stem", "encoder", "fusion"}
    assert next(model.encoder_parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4, 8)}, "expected 5 integers"),
        ({"convs": (1, 1, -1, 0)}, "at least 0"),
        ({"decoder_convs": (1, 0, 1, 0)}, "one or more on the 2 highest levels"),
        ({"attentions": (1, 0, 1)}, "at least 1"),
        ({"heads": (2, 3, 4)}, "divisors of the widths"),
        ({"fusion_heads": 5}, "a divisor of 12"),
        ({"map_tokens": 1}, "2 or more"),
        ({"activation": "selu"}, "'relu', 'gelu'"),
        ({"strides": (2, 2)}, "expected 4 entries"),
        ({"kernels": (3, 3, 2, 3, 3)}, "odd"),
        ({"deep_supervision": "no"}, "true or false"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)

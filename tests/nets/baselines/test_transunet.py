import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.transunet import StandardizedConv, TransUNet
from voxelseg.nets.complexity import count

TINY = {
    "image_size": (32, 48),
    "width": 8,
    "blocks": (1, 1, 2),
    "embedding": 24,
    "layers": 1,
    "heads": 2,
    "mlp_width": 32,
    "dropout": 0.0,
    "bridge": 16,
    "decoder": (16, 8, 8, 8),
}


def tiny(**options: object) -> TransUNet:
    torch.manual_seed(0)
    return create_model("transunet", **{"in_channels": 1, "num_classes": 2, **TINY, **options})


def test_the_published_network_has_its_size():
    # Embedding 1024 * 768 + 768 + 14^2 * 768 = 937,728. Each transformer layer: norms 4 * 768, attention
    # 4 * (768^2 + 768), MLP 2 * 768 * 3072 + 3072 + 768: 7,087,872; twelve of them and a norm: 85,056,000.
    with torch.device("meta"):
        model = create_model("transunet", in_channels=3, num_classes=9)
    assert sum(p.numel() for p in (*model.embed.parameters(), model.position)) == 937_728
    assert sum(p.numel() for p in (*model.layers.parameters(), *model.norm.parameters())) == 85_056_000
    assert sum(parameter.numel() for parameter in model.parameters()) == 105_277_081
    assert round(count(model, (224, 224)).macs / 1e9, 1) == 29.2


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_the_shape_of_the_slice_and_gradients_reach_every_parameter(channels):
    model = tiny(in_channels=channels).train()
    out = model(torch.randn(3, channels, 32, 48))
    assert out.shape == (3, 2, 32, 48)
    (out * torch.linspace(0, 1, out.numel()).view_as(out)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_features_at_strides_2_4_8_and_16_lead_to_the_decoder():
    deepest, skips = tiny().resnet(torch.randn(1, 1, 32, 48))
    assert [tuple(skip.shape) for skip in skips] == [(1, 8, 16, 24), (1, 32, 8, 12), (1, 64, 4, 6)]
    assert deepest.shape == (1, 128, 2, 3)
    assert not skips[1][..., -1].any()  # pooling without padding lacks the last row and column
    assert skips[1][..., -2].any()


def test_filters_are_standardised():
    conv = StandardizedConv(3, 4, 3)
    filters = conv.standardize().flatten(1)
    torch.testing.assert_close(filters.mean(1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(filters.var(1, correction=0), torch.ones(4), atol=1e-2, rtol=0)


def test_position_embeddings_are_resized_for_other_slices():
    model = tiny().eval()
    torch.nn.init.normal_(model.position)
    x = torch.randn(1, 1, 64, 32)
    out = model(x)
    assert out.shape == (1, 2, 64, 32)
    resized = torch.nn.functional.interpolate(model.position, size=(4, 2), mode="bilinear")
    other = tiny(image_size=(64, 32)).eval()
    other.load_state_dict({**model.state_dict(), "position": resized})
    torch.testing.assert_close(other(x), out)


def test_dropout_is_an_option():
    x = torch.randn(2, 1, 32, 48)
    model = tiny(dropout=0.5).train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    torch.testing.assert_close(model(x), model(x))


def test_fused_it_says_the_same():
    model = tiny()
    with torch.no_grad():
        model.train()(torch.randn(2, 1, 32, 48))  # running statistics other than 0 and 1
    model.eval()
    x = torch.randn(1, 1, 32, 48)
    expected = model(x)
    model.fuse()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    model.fuse()  # twice does no harm
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(32, 48\)"):
        tiny()(torch.zeros(1, 1, 32, 40))
    with pytest.raises(DataError, match=r"expects \(B, 1, H, W\)"):
        tiny()(torch.zeros(1, 1, 16, 32, 48))


def test_encoder_parameters_leave_out_the_decoder():
    model = tiny()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    encoding = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert encoding == {"resnet", "embed", "position", "layers", "norm"}
    assert next(model.encoder_parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 40}, "multiples of 16"),
        ({"image_size": (32, 32, 32)}, "two of them"),
        ({"heads": 5}, "a multiple of heads"),
        ({"blocks": (1, 1)}, "3 integers of at least 1"),
        ({"decoder": 16}, "4 integers of at least 1"),
        ({"dropout": -0.1}, "from 0 up to but not including 1"),
        ({"dropout": True}, "from 0 up to but not including 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)

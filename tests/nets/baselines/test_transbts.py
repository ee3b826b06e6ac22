import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.transbts import TransBTS

TINY = {
    "image_size": (8, 16, 24),
    "width": 16,
    "blocks": (1, 1, 1, 2),
    "embedding": 12,
    "layers": 2,
    "heads": 2,
    "mlp_width": 16,
    "dropout": 0.0,
    "stem_dropout": 0.0,
}


def tiny(**options: object) -> TransBTS:
    torch.manual_seed(0)
    return create_model("transbts", **{"in_channels": 1, "num_classes": 2, **TINY, **options})


def test_the_published_network_has_its_size():
    # A transformer layer: two norms 4 * 512, attention 4 * 512^2 + 512, MLP 2 * 512 * 4096 + 4096 + 512: 5,250,048.
    # 12^3 positions of 512 channels at 96^3.
    with torch.device("meta"):
        model = create_model("transbts", in_channels=1, num_classes=8, image_size=96)
    assert sum(parameter.numel() for parameter in model.layers.parameters()) == 4 * 5_250_048
    assert model.position.shape == (1, 12**3, 512)
    assert sum(parameter.numel() for parameter in model.parameters()) == 31_509_400  # 31.6 M in print


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_the_shape_of_the_input_and_gradients_reach_every_parameter(channels):
    model = tiny(in_channels=channels).train()
    out = model(torch.randn(3, channels, 8, 16, 24))
    assert out.shape == (3, 2, 8, 16, 24)
    (out * torch.linspace(0, 1, out.numel()).view_as(out)).square().sum().backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    largest = max(gradient.abs().max() for gradient in gradients.values())
    assert [key for key, gradient in gradients.items() if gradient.abs().max() < 1e-9 * largest] == []


def test_the_transformer_knows_positions_by_their_embedding_alone():
    model, x = tiny().eval(), torch.randn(1, 128, 1, 2, 3)
    with torch.no_grad():  # the embedding's convolution sees no neighbours
        middle = model.embed.weight[..., 1, 1, 1].clone()
        model.embed.weight.zero_()[..., 1, 1, 1] = middle
    torch.testing.assert_close(model.transform(x.flip(4)), model.transform(x).flip(4))
    torch.nn.init.normal_(model.position)
    assert not torch.allclose(model.transform(x.flip(4)), model.transform(x).flip(4), atol=1e-2)


def test_fusing_leaves_the_logits_as_they_are():
    model = tiny().train()
    x = torch.randn(2, 1, 8, 16, 24)
    model(x)  # moves the running statistics
    expected = model.eval()(x)
    model.fuse()
    names = [type(module).__name__ for module in model.modules()]
    assert names.count("BatchNorm3d") == 1  # the one before a convolution
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dropout", "stem_dropout"])
def test_dropout_is_for_training_alone(name):
    model, x = tiny(**{name: 0.5}), torch.randn(2, 1, 8, 16, 24)
    assert not torch.equal(model.train()(x), model(x))
    torch.testing.assert_close(model.eval()(x), model(x))


def test_thick_and_few_slices_are_strided_as_planned():
    full, flat = (2, 2, 2), (1, 2, 2)
    planned = tiny().config.plan_options
    assert planned({}, ((1, 1, 1), full, full, full, full), ())["strides"] == (full, full, full)
    strides = planned({}, ((1, 1, 1), flat, flat, full, full), ())["strides"]
    assert strides == (flat, flat, full)
    model = tiny(strides=strides, image_size=(2, 16, 24))
    assert model.divisor == (2, 8, 8)
    assert model(torch.randn(1, 1, 2, 16, 24)).shape == (1, 2, 2, 16, 24)


def test_only_one_size_is_taken_and_smaller_inputs_are_padded_on_request():
    model = tiny().eval()
    assert model.image_size == (8, 16, 24)
    with pytest.raises(DataError, match=r"was built for \(8, 16, 24\)"):
        model(torch.zeros(1, 1, 8, 16, 16))
    assert model.forward_any_size(torch.zeros(1, 1, 7, 16, 21)).shape == (1, 2, 7, 16, 21)


def test_encoder_parameters_are_those_before_the_decoder():
    model = tiny()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    encoding = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert encoding == {"stem", "encoder", "down", "embed_norm", "embed", "position", "layers"}
    assert next(model.encoder_parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (8, 16, 20)}, r"multiples of \(8, 8, 8\)"),
        ({"image_size": 8}, "more than one"),
        ({"width": 12}, "a multiple of 8"),
        ({"blocks": (1, 1)}, "expected 4 integers"),
        ({"strides": (2, 2)}, "expected 3 steps"),
        ({"heads": 5}, "a multiple of heads"),
        ({"dropout": 1}, "from 0 up to"),
        ({"stem_dropout": "some"}, "from 0 up to"),
        ({"layers": 0}, "positive integer"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)

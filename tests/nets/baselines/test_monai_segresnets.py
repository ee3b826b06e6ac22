import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import Network, create_model

TINY = {"width": 4, "groups": 2, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)}
TINY_VAE = {**TINY, "image_size": (24, 8, 16), "latent": 6}


def tiny(name: str, **options: object) -> Network:
    torch.manual_seed(0)
    settings = TINY_VAE if name == "segresnet_vae" else TINY
    return create_model(name, **{"in_channels": 1, "num_classes": 2, **settings, **options})


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [("segresnet", 5, 1_176_213), ("segresnet_vae", 14, 3_863_471)],  # 1.18 M and 3.9 M in print
)
def test_published_sizes_have_their_number_of_parameters(name, num_classes, parameters):
    with torch.device("meta"):
        model = create_model(name, in_channels=1, num_classes=num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("upsampling", ["nontrainable", "deconv", "pixelshuffle"])
def test_every_upsampling_leads_back_to_the_size_of_the_input(upsampling):
    model = tiny("segresnet", in_channels=3, upsampling=upsampling).train()
    logits = model(torch.randn(3, 3, 12, 4, 8))
    assert logits.shape == (3, 2, 12, 4, 8)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_weights_pass_to_monai_and_back():
    from monai.networks.nets import SegResNetVAE

    ours = tiny("segresnet_vae").eval()
    theirs = SegResNetVAE(
        (24, 8, 16),
        vae_nz=6,
        init_filters=4,
        blocks_down=(1, 1, 1),
        blocks_up=(1, 1),
        norm=("GROUP", {"num_groups": 2}),
    ).eval()
    theirs.load_state_dict(ours.network.state_dict())
    x = torch.randn(1, 1, 24, 8, 16)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x)[0], ours(x))


def test_the_autoencoders_loss_is_there_in_training_only_and_weighted():
    model, x = tiny("segresnet_vae"), torch.randn(2, 1, 24, 8, 16)
    losses = []
    for weight in (0.1, 0.5):
        model = tiny("segresnet_vae", vae_weight=weight).train()
        torch.manual_seed(1)  # the latent variables are drawn
        assert model(x).shape == (2, 2, 24, 8, 16)
        losses.append(model.auxiliary_loss)
    assert losses[0].shape == ()
    torch.testing.assert_close(losses[1], 5 * losses[0])
    losses[1].backward()
    model.eval()
    model(x)
    assert model.auxiliary_loss is None


def test_the_loss_is_that_of_reconstruction_and_of_the_means_of_the_latent_variables():
    model = tiny("segresnet_vae", default_std=0.0, vae_weight=1.0).train()
    for parameter in model.network.vae_fc1.parameters():
        torch.nn.init.zeros_(parameter)  # means of 0: their loss is 0
    for parameter in model.network.vae_conv_final.parameters():
        torch.nn.init.zeros_(parameter)  # a reconstruction of 0: the mean square of the input is left
    x = torch.randn(1, 1, 24, 8, 16)
    model(x)
    torch.testing.assert_close(model.auxiliary_loss.detach(), x.square().mean())


@pytest.mark.parametrize("estimate_std", [True, False])
def test_the_layer_for_the_standard_deviation_is_trained_if_it_is_estimated(estimate_std):
    model = tiny("segresnet_vae", estimate_std=estimate_std).train()
    logits = model(torch.randn(1, 1, 24, 8, 16))
    (logits.square().mean() + model.auxiliary_loss).backward()
    untrained = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    layer = {"network.vae_fc2.weight", "network.vae_fc2.bias"}
    assert untrained == (set() if estimate_std else layer)
    assert {key for key, parameter in model.named_parameters() if not parameter.requires_grad} == untrained


def test_the_encoder_is_the_way_down_without_the_autoencoder():
    for name in ("segresnet", "segresnet_vae"):
        model = tiny(name)
        encoding = {id(parameter) for parameter in model.encoder_parameters()}
        names = {key.split(".")[1] for key, parameter in model.named_parameters() if id(parameter) in encoding}
        assert names == {"convInit", "down_layers"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("segresnet", {"groups": 3}, "expected a divisor of the width, 4"),
        ("segresnet", {"blocks_up": (1,)}, "blocks_up = .*expected 2 integers"),
        ("segresnet", {"upsampling": "nearest"}, "'nontrainable', 'deconv', 'pixelshuffle'"),
        ("segresnet", {"dropout": -0.1}, "from 0 up to"),
        ("segresnet_vae", {"image_size": (24, 8, 12)}, "multiples of 8"),
        ("segresnet_vae", {"width": 6, "groups": 3}, "divisor of the 16 channels"),
        ("segresnet_vae", {"latent": 0}, "positive integer"),
        ("segresnet_vae", {"default_std": -1}, "0 or a positive number"),
        ("segresnet_vae", {"vae_weight": float("inf")}, "0 or a positive number"),
        ("segresnet_vae", {"estimate_std": "yes"}, "true or false"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(name, **options)

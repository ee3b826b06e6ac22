import copy

import pytest
import torch
from logonet_golden import FORMS, Golden
from torch import Tensor, nn

from voxelseg import optimize_for_inference
from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import NETWORKS, create_model
from voxelseg.nets.complexity import cost_in_papers
from voxelseg.nets.official import convert, load_official
from voxelseg.nets.ulkanet import AttentionBlock, ULKANet, ULKANetConfig
from voxelseg.ops.dispatch import plain_forms


def small(**options: object) -> ULKANet:
    torch.manual_seed(0)
    settings = {"in_channels": 1, "num_classes": 3, "dims": (4, 6), "depths": (1, 2), "mlp_ratios": (2, 3), **options}
    return ULKANet(ULKANetConfig(**settings))


def randomised(model: nn.Module) -> nn.Module:
    """Weights and statistics far from their initial values."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    for key, buffer in model.named_buffers():
        if key.endswith(("mean", "var")):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return model


@pytest.mark.parametrize("residual", FORMS)
def test_outputs_are_those_of_the_authors_code(golden_data, residual):
    Golden(golden_data, "ulkanet").check_outputs(residual)


@pytest.mark.parametrize("residual", FORMS)
def test_encoder_features_are_those_of_the_authors_code(golden_data, residual):
    golden, suffix = Golden(golden_data, "ulkanet"), FORMS[residual]
    with torch.no_grad():
        features = golden.model(residual).body.encode(golden.tensors["input"])
    assert len(features) == 4
    for stage, feature in enumerate(features):
        golden.assert_close(feature, f"skip_{stage}{suffix}", f"skips{suffix}")


def test_training_outputs_and_running_statistics_are_those_of_the_authors_code(golden_data):
    Golden(golden_data, "ulkanet").check_training()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_gradients_are_those_of_the_authors_code(golden_data, dtype, tolerance):
    """float64 runs the plain forms of all operations, float32 the fast ones."""
    Golden(golden_data, "ulkanet").check_gradients(dtype, tolerance)


@pytest.mark.parametrize("residual", ["prenorm", "algorithm3"])
def test_gradients_of_the_other_forms_are_those_of_their_loss(golden_data, residual):
    Golden(golden_data, "ulkanet").check_gradient_of_other_form(residual)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs", "thop"),
    [("ulkanet", 40_256_426, 109.40, 109.95), ("ulkanet_l", 121_226_346, 217.94, 218.70)],
)
def test_parameters_and_cost_are_those_of_the_authors_logs(name, parameters, gmacs, thop):
    with torch.device("meta"):
        model = create_model(name, in_channels=1, num_classes=14)
    found, counted, macs = cost_in_papers(model, (96, 96, 96), convention="thop")
    assert found == parameters
    assert macs / 1e9 == pytest.approx(gmacs, abs=0.005)
    assert counted / 1e9 == pytest.approx(thop, abs=0.005)
    (printed,) = NETWORKS[name].printed
    assert counted / 1e9 == pytest.approx(printed.gflops, rel=2e-4)
    assert parameters / 1e6 == pytest.approx(printed.parameters_m, rel=2e-3)


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize(("residual", "expected"), [("prenorm", 7.8), ("algorithm3", 3.3), ("released", 0.4)])
def test_a_block_in_each_form_of_the_residual(residual, expected):
    """The attention is its shortcut alone, the MLP the identity; norm 1 is (x - 1) / 2, norm 2 nothing; x = 5.

    prenorm: 5 + 0.1 * 2 = 5.2, plus half of itself. algorithm3: 2 + 0.1 * 2 = 2.2, plus half of itself.
    released: twice 0.1 * 2 is 0.4, twice half of that.
    """
    config = ULKANetConfig(in_channels=1, num_classes=2, residual=residual)
    block = AttentionBlock(1, ratio=1, kernel=(3, 3, 3), config=config).eval()
    block.attention, block.mlp = Zero(), nn.Identity()
    nn.init.constant_(block.scale1, 0.1)
    nn.init.constant_(block.scale2, 0.5)
    block.norm1.running_mean.fill_(1.0)
    block.norm1.running_var.fill_(4.0)
    assert block(torch.full((1, 1, 1, 1, 1), 5.0)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("residual", FORMS)
def test_folded_networks_give_the_same_with_fewer_layers(residual):
    model = randomised(small(residual=residual)).eval()
    fast = optimize_for_inference(model)
    x = torch.randn(2, 1, 8, 16, 24)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(fast(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
        torch.testing.assert_close(optimize_for_inference(fast)(x), fast(x), rtol=0, atol=0)
    left = [name.split(".")[-1] for name, module in fast.named_modules() if isinstance(module, nn.BatchNorm3d)]
    # Three blocks: the norm inside each attention stays, since zeros are padded after it. Of the others, the released
    # form folds all but the first norm of a stage's second block.
    assert (
        sorted(left)
        == {
            "prenorm": ["norm"] * 3 + ["norm1"] * 3,
            "algorithm3": ["norm"] * 3 + ["norm1"] + ["norm2"] * 3,
            "released": ["norm"] * 3 + ["norm1"],
        }[residual]
    )


def test_plain_and_fast_forms_give_the_same_values_and_gradients():
    model = randomised(small()).train()
    x = torch.randn(2, 1, 8, 16, 24)
    results = []
    for twin, dtype in ((model, torch.float32), (copy.deepcopy(model), torch.float64)):  # float64 has plain forms only
        y = twin.to(dtype)(x.to(dtype))
        y.square().mean().backward()
        results.append({"y": y.detach(), **{key: p.grad for key, p in twin.named_parameters()}})
    largest = max(value.abs().max() for value in results[1].values())
    for key, value in results[1].items():
        assert (results[0][key] - value).norm() < 2e-3 * value.norm() + 1e-5 * largest, key
    with plain_forms():
        torch.testing.assert_close(model(x), results[0]["y"], rtol=1e-3, atol=1e-3)


def test_features_need_not_be_as_many_as_classes():
    model = small(feature_channels=5)
    assert model(torch.randn(2, 1, 8, 8, 16)).shape == (2, 3, 8, 8, 16)
    assert model.body.fusion.second.conv.weight.shape[:2] == (5, 5)
    assert model.classifier.weight.shape[:2] == (3, 5)


def test_one_voxel_at_the_lowest_resolution_is_enough_unless_a_single_sample_trains():
    model = small()
    assert model.divisor == (8, 8, 8)
    model(torch.randn(2, 1, 8, 8, 8))
    with pytest.raises(DataError, match=r"Pad the input to \(8, 8, 16\)"):
        model(torch.randn(1, 1, 8, 8, 8))
    assert model.eval()(torch.randn(1, 1, 8, 8, 8)).isfinite().all()
    with pytest.raises(DataError, match=r"Pad the input to \(8, 16, 8\)"):
        model(torch.randn(1, 1, 8, 12, 8))


TWO, THICK = (2, 2, 2), (1, 2, 2)


def test_isotropic_plans_keep_the_published_network():
    kernels = ((3, 3, 3),) * 6
    planned = ULKANetConfig.plan_options({}, ((1, 1, 1), *[TWO] * 5), kernels)
    default = ULKANetConfig(in_channels=1, num_classes=2)
    assert ULKANetConfig(in_channels=1, num_classes=2, **planned) == default
    assert default.strides == (TWO,) * 5
    assert default.kernels == kernels


def test_thick_slices_are_downsampled_later_and_have_flat_kernels():
    """Slices of ACDC: 3 mm in plane, 10 mm thick."""
    strides = ((1, 1, 1), THICK, TWO, TWO, THICK, THICK)
    kernels = ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert ULKANetConfig.plan_options({"kernels": 5}, strides, kernels)["kernels"][:2] == ((1, 5, 5), (5, 5, 5))
    planned = ULKANetConfig.plan_options({"dims": [4, 6, 8, 10]}, strides, kernels)
    model = small(dims=(4, 6, 8, 10), depths=(1,) * 4, mlp_ratios=(2,) * 4, **planned).eval()
    assert model.divisor == (4, 32, 32)
    embeds = [stage.embed for stage in model.body.stages]
    assert [embed.stride for embed in embeds] == [(2, 4, 4), (2, 2, 2), (1, 2, 2), (1, 2, 2)]
    assert [embed.kernel_size for embed in embeds] == [(3, 7, 7), (3, 3, 3), (1, 3, 3), (1, 3, 3)]
    assert model.body.stem.first.conv.kernel_size == (1, 3, 3)
    assert model.body.refine.first.conv.kernel_size == (3, 3, 3)
    assert model(torch.randn(1, 1, 4, 32, 64)).shape == (1, 3, 4, 32, 64)


def test_a_network_of_single_slices_is_flat_throughout():
    model = small(strides=(THICK,) * 3, kernels=((1, 3, 3),) * 4)
    spatial = {name: p.shape[2] for name, p in model.named_parameters() if p.ndim == 5}
    assert set(spatial.values()) == {1}
    x = torch.randn(2, 1, 3, 8, 16)
    model.eval()
    together = model(x)
    alone = torch.cat([model(x[:, :, slice_ : slice_ + 1]) for slice_ in range(3)], dim=2)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_official_weights_are_loaded_and_the_head_of_pre_training_is_left_out(golden_data):
    golden = Golden(golden_data, "ulkanet")
    assert len(golden.official) == golden.facts["n_state_entries"]
    assert sum(p.numel() for p in golden.model("released").parameters()) == golden.facts["n_params"]
    weights = {f"module.{key}": value for key, value in golden.official.items()}
    assert convert("ulkanet", {"state_dict": weights, "epoch": 3}).keys() == convert("ulkanet", golden.official).keys()
    pretrained = {key: value for key, value in golden.official.items() if not key.startswith("final_conv1.")}
    model = create_model(
        "ulkanet", in_channels=2, num_classes=5, dims=(4, 8, 16, 32), depths=(1, 2, 1, 1), mlp_ratios=(4, 3, 2, 2)
    )
    report = load_official(model, "ulkanet", {**pretrained, "pre_train_proj.0.weight": torch.zeros(2)})
    assert report.left_out == ("pre_train_proj.0.weight",)
    assert report.differing == ("residual = 'released'",)
    assert "The authors' code computes something else: it has residual = 'released'." in str(report)
    assert {name.rsplit(".", 1)[0] for name in report.missing} == {
        *(f"body.fusion.{unit}.{layer}" for unit in ("first", "second") for layer in ("conv", "norm")),
        "classifier",
    }
    assert all(name.startswith(("body.refine.", "body.last_up.")) for name in report.mismatched)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (4,)}, "depths = .*expected 1 integers"),
        ({"dims": (5, 6)}, "even first number"),
        ({"dims": 4}, "a list of integers of at least 1"),
        ({"depths": (1, 0)}, "integers of at least 1"),
        ({"mlp_ratios": (2, 2, 2)}, "mlp_ratios = .*expected 2 integers"),
        ({"residual": "none"}, "one of 'algorithm3', 'prenorm', 'released'"),
        ({"mlp_pre_gelu": 1}, "true or false"),
        ({"feature_channels": 0}, "positive integer"),
        ({"strides": (2, 2)}, "3 entries"),
        ({"kernels": 4}, "odd sizes"),
        ({"kernels": (3, 3, 3)}, "4 entries"),
        ({"in_channels": 0}, "positive integer"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)

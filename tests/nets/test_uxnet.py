import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from voxelseg import optimize_for_inference
from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.official import convert, load_official
from voxelseg.nets.uxnet import UXNet, UXNetConfig
from voxelseg.ops.dispatch import plain_forms

GOLDEN = ["uxnet_a_small", "uxnet_b_small"]


def small(**options: object) -> UXNet:
    torch.manual_seed(0)
    settings = {"in_channels": 1, "num_classes": 2, "features": (4, 6), "depths": (1, 2), "strides": (2, 2), **options}
    return UXNet(UXNetConfig(**settings))


def randomised(model: UXNet) -> UXNet:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def golden(folder: Path, name: str) -> tuple[UXNet, dict[str, Tensor], dict]:
    tensors = load_file(folder / f"{name}.safetensors")
    facts = json.loads((folder / f"{name}.json").read_text())
    config = facts["config"]
    model = UXNet(
        UXNetConfig(
            in_channels=config["in_chans"],
            num_classes=config["out_chans"],
            features=config["feat_size"],
            hidden=config["hidden_size"],
            depths=config["depths"],
            drop_path=config["drop_path_rate"],
        )
    )
    weights = {
        key.removeprefix("state_dict."): value for key, value in tensors.items() if key.startswith("state_dict.")
    }
    load_official(model, "uxnet", weights)
    return model, tensors, facts


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_those_of_the_authors_code(golden_data, name):
    model, tensors, facts = golden(golden_data, name)
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["n_params"]
    tolerance = facts["suggested_tolerance"]
    with torch.no_grad():
        output = model.eval()(tensors["input"])
    torch.testing.assert_close(output, tensors["output_0"], rtol=tolerance["rtol"], atol=tolerance["atol"][0])


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [  # norms over the 8 voxels of the lowest resolution make float32 inexact: PyTorch's own operations are off by 6e-3
        *((name, torch.float32, 1e-2) for name in GOLDEN),
        *((name, torch.float64, 1e-9) for name in GOLDEN),
    ],
)
def test_gradients_are_those_of_the_authors_code(golden_data, name, dtype, tolerance):
    """float64 runs the plain forms of all operations, float32 the fast ones."""
    model, tensors, facts = golden(golden_data, name)
    expected = facts["grad_check"]
    model.to(dtype)
    x = tensors["input"].to(dtype).requires_grad_()
    x.retain_grad()
    loss = model(x).square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss_value"], rel=min(tolerance, 1e-5))
    assert x.grad.norm().item() == pytest.approx(expected["input_grad_l2"], rel=tolerance)
    parameters = dict(model.named_parameters())
    for key, norm in expected["param_grad_l2"].items():
        ours = next(iter(convert("uxnet", {key: torch.empty(0)})))
        assert parameters.pop(ours).grad.norm().item() == pytest.approx(norm, rel=tolerance), key
    assert not parameters


def cost(name: str = "uxnet", **options: object) -> tuple[int, float]:
    """Parameters and 10^9 multiply-accumulates at 96 x 96 x 96."""
    with torch.device("meta"):
        model = create_model(name, in_channels=1, **{"num_classes": 5, **options}).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 1, 96, 96, 96))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ("num_classes", "parameters", "gmacs"),
    [(5, 53_006_069, 577.40), (8, 53_006_216, 577.53), (16, 53_006_608, 577.87)],
)
def test_the_default_costs_what_the_authors_code_does(num_classes, parameters, gmacs):
    ours = cost(num_classes=num_classes)
    assert ours[0] == parameters
    assert ours[1] == pytest.approx(gmacs, abs=5e-3)


@pytest.mark.parametrize(
    ("options", "millions", "gmacs"),
    [
        ({"kernel_size": 3}, 52.551, 572.95),
        ({"kernel_size": 5}, 52.692, 574.33),
        ({"kernel_size": 9}, 53.562, 582.85),
        ({"kernel_size": 11}, 54.429, 591.33),
        ({"kernel_size": 13}, 55.676, 603.55),
        ({"scaling": "mlp"}, 56.128, 584.93),
        ({"scaling": "none"}, 52.987, 577.29),
        ({"depthwise": False}, 186.858, 900.31),
        ({"hidden": 384, "bottleneck": "none", "depths": (2, 2, 8, 2)}, 28.058, 572.62),
        ({"hidden": 384, "bottleneck": "none", "depths": (2, 2, 8, 2), "scaling": "mlp"}, 32.941, 583.20),
    ],
)
def test_ablations_cost_what_the_authors_code_does(options, millions, gmacs):
    parameters, ours = cost(**options)
    assert round(parameters / 1e6, 3) == millions
    assert ours == pytest.approx(gmacs, abs=5e-3)


def test_the_optimised_network_has_nearly_the_printed_parameters():
    parameters, _ = cost("uxnet_optimized")
    assert parameters == 32_039_669  # printed: 32.1 M


@pytest.mark.parametrize(
    "options",
    [
        {"block": "paper"},
        {"scaling": "mlp"},
        {"scaling": "none"},
        {"block": "paper", "scaling": "none"},
        {"block": "paper", "layer_scale": None},
        {"depthwise": False},
        {"layer_scale": None},
        {"layer_scale": 0.5},
        {"transition_norm": False},
        {"output_norm": False},
        {"bottleneck": "conv"},
        {"bottleneck": "none"},
        {"kernel_size": 3},
        {"kernel_size": ((3, 5, 7), 5)},
        {"stem_kernel": (1, 7, 3)},
        {"residual_kernel": ((1, 3, 3), 3, 5)},
        {"hidden": 5},
        {"features": (4, 6, 8), "depths": (1, 1, 1), "strides": (2, 2, 2)},
        {"strides": ((1, 2, 2), (2, 2, 2))},
    ],
)
def test_every_option_changes_the_result_and_every_parameter_learns(options):
    x = torch.randn(1, 1, 8, 16, 24)
    model = randomised(small(**options, deep_supervision=True))
    outputs = model(x)
    sum(output.square().mean() for output in outputs).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []
    assert not torch.equal(small(**options)(x), small()(x))


@pytest.mark.parametrize("block", ["released", "paper"])
def test_blocks_without_branches_are_the_identity(block):
    x = torch.randn(2, 4, 4, 6, 8)
    model = small(block=block, layer_scale=0.0)
    torch.testing.assert_close(model.stages[0](x), x)


def test_layer_scale_starts_at_the_asked_value():
    assert all(block.layer_scale.eq(0.25).all() for stage in small(layer_scale=0.25).stages for block in stage)
    default = small().stages[0][0].layer_scale
    assert default.tolist() == pytest.approx([1e-6] * 4)


def test_the_papers_block_normalises_before_each_of_two_residual_branches():
    """Eq. 1, in PyTorch's own operations."""
    model = randomised(small(block="paper", layer_scale=None))
    block, x = model.stages[0][0], torch.randn(2, 4, 4, 6, 8)

    def normalised(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        voxels = x.movedim(1, -1)
        return torch.nn.functional.layer_norm(voxels, (4,), norm.weight, norm.bias, 1e-6).movedim(-1, 1)

    z = block.conv(normalised(x, block.conv_norm)) + x
    expected = block.compress(torch.nn.functional.gelu(block.expand(normalised(z, block.norm)))) + z
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_drop_path_leaves_out_branches_of_samples_in_training_only():
    model = small(drop_path=0.9, layer_scale=1.0)
    assert [block.drop_path for stage in model.stages for block in stage] == pytest.approx([0.0, 0.45, 0.9])
    block, x = model.stages[1][1], torch.randn(64, 6, 2, 3, 4)
    whole = block.eval()(x) - x
    change = block.train()(x) - x
    left_out = (change == 0).flatten(1).all(1)
    assert 40 < left_out.sum() < 64
    torch.testing.assert_close(change[~left_out], whole[~left_out] / 0.1, rtol=1e-4, atol=1e-5)


def test_deep_supervision_switches_the_outputs_and_not_the_state_dict():
    model = small(deep_supervision=True)
    x = torch.randn(2, 1, 8, 12, 16)
    keys = set(model.state_dict())
    for mode in (True, False):
        outputs = model.train(mode)(x)
        assert [tuple(output.shape) for output in outputs] == [(2, 2, 8, 12, 16), (2, 2, 4, 6, 8)]
    assert model.output_strides == [(1, 1, 1), (2, 2, 2)]
    model.deep_supervision = False
    torch.testing.assert_close(model(x), outputs[0])
    assert set(model.state_dict()) == keys


def test_the_published_network_has_heads_at_four_resolutions():
    with torch.device("meta"):
        model = create_model("uxnet", in_channels=1, num_classes=3, deep_supervision=True)
    assert model.output_strides == [(n, n, n) for n in (1, 2, 4, 8)]
    assert model.divisor == (16, 16, 16)


ISOTROPIC = ((1, 1, 1), *((2, 2, 2),) * 5)
THICK = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
THICK_KERNELS = ((1, 3, 3), (1, 3, 3), *((3, 3, 3),) * 4)


def test_an_isotropic_plan_gives_the_published_network():
    options = UXNetConfig.plan_options({}, ISOTROPIC, ((3, 3, 3),) * 6)
    published = UXNetConfig(in_channels=1, num_classes=2)
    assert UXNetConfig(in_channels=1, num_classes=2, **options) == published


def test_a_plan_of_thick_slices_gives_flat_strides_and_kernels():
    options = UXNetConfig.plan_options({"kernel_size": 5}, THICK, THICK_KERNELS)
    config = UXNetConfig(in_channels=1, num_classes=2, **options)
    assert config.strides == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert config.stem_kernel == (1, 7, 7)
    assert config.kernel_size == ((1, 5, 5), (5, 5, 5), (5, 5, 5), (5, 5, 5))
    assert config.residual_kernel == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    model = small(**{**options, "features": (2, 3, 4, 5), "depths": (1, 1, 1, 1)})
    assert model.divisor == (4, 16, 16)
    assert model(torch.randn(1, 1, 4, 32, 16)).shape == (1, 2, 4, 32, 16)


def test_kernels_that_are_one_number_are_spread_by_a_plan_and_lists_are_kept():
    sizes = {"stem_kernel": 5, "kernel_size": [3, 3, 5, 5], "residual_kernel": 5}
    options = UXNetConfig.plan_options(sizes, THICK, THICK_KERNELS)
    assert options["stem_kernel"] == (1, 5, 5)
    assert options["residual_kernel"] == ((1, 5, 5), (1, 5, 5), (5, 5, 5), (5, 5, 5), (5, 5, 5))
    assert "kernel_size" not in options
    with pytest.raises(ConfigError, match="features = 48: expected a list"):
        UXNetConfig.plan_options({"features": 48}, THICK, THICK_KERNELS)


def test_volumes_of_one_slice_are_segmented_where_nothing_is_strided_along_d():
    model = small(strides=((1, 2, 2), (1, 2, 2)), deep_supervision=True)
    assert [tuple(output.shape[2:]) for output in model(torch.randn(1, 1, 1, 8, 12))] == [(1, 8, 12), (1, 4, 6)]


@pytest.mark.parametrize("options", [{}, {"block": "paper"}, {"scaling": "mlp"}, {"depthwise": False}])
@pytest.mark.parametrize("size", [(8, 12, 16), (16, 4, 8)])
def test_fast_forms_give_the_numbers_of_plain_ones(options, size):
    """Wide enough for every fast form; gradients also differ where rounding changes the sign before a leaky ReLU."""
    settings = {"features": (16, 24), "deep_supervision": True, "in_channels": 3, "kernel_size": 3, **options}
    model, exact = (randomised(small(**settings)) for _ in range(2))
    exact.load_state_dict(model.state_dict())
    exact.double()
    x = torch.randn(3, 3, *size)
    outputs = model(x)
    with plain_forms():
        expected = exact(x.double())
    sum(output.square().mean() for output in outputs).backward()
    sum(output.square().mean() for output in expected).backward()
    for a, b in zip(outputs, expected, strict=True):
        assert (a.double() - b).norm() < 1e-4 * b.norm()
    for (key, a), b in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert (a.grad.double() - b.grad).norm() < 1e-2 * b.grad.norm() + 1e-6, key


@pytest.mark.parametrize(
    "options", [{}, {"block": "paper"}, {"scaling": "mlp"}, {"scaling": "none"}, {"block": "paper", "scaling": "none"}]
)
def test_layer_scales_are_folded_into_weights_for_inference(options):
    model = randomised(small(**options)).eval()
    optimized = optimize_for_inference(model)
    x = torch.randn(1, 1, 8, 12, 16)
    torch.testing.assert_close(optimized(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    assert any("scale" in key for key in model.state_dict())
    assert not any("scale" in key for key in optimized.state_dict())


def test_encoder_parameters_are_those_of_the_backbone():
    model = small()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    tops = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert tops == {"stem", "transitions", "stages", "output_norms"}


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(8, 8, 8\)"):
        small()(torch.zeros(1, 1, 8, 8, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": (4, 0)}, "integers of at least 1"),
        ({"features": 4}, "a list of integers"),
        ({"depths": (1,)}, "expected 2 integers"),
        ({"strides": (2,)}, r"one per stage, as features \(2\)"),
        ({"kernel_size": 4}, "odd"),
        ({"kernel_size": (3, 3, 3)}, r"one per level \(2\)"),
        ({"residual_kernel": (3, 3)}, r"one per level \(3\)"),
        ({"stem_kernel": (7, 7)}, "three of them"),
        ({"block": "convnext"}, "'released', 'paper'"),
        ({"scaling": None}, "'dcs', 'mlp', 'none'"),
        ({"bottleneck": True}, "'residual', 'conv', 'none'"),
        ({"bottleneck": "none", "hidden": 12}, "the 6 channels of the last stage"),
        ({"hidden": 0}, "positive integer"),
        ({"drop_path": 1.0}, "from 0 up to but not including 1"),
        ({"layer_scale": "1e-6"}, "a number, or None"),
        ({"layer_scale": True}, "a number, or None"),
        ({"layer_scale": float("nan")}, "a number, or None"),
        ({"depthwise": 1}, "true or false"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)

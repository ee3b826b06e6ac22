import dataclasses
import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.mednext import ENTRIES, SIZES, MedNeXt, MedNeXtBlock, MedNeXtConfig
from voxelseg.nets.official import convert, load_official
from voxelseg.ops.dispatch import plain_forms

GOLDEN = ["mednext_k3_small", "mednext_k5_small", "mednext_upkern_small"]


def small(**options: object) -> MedNeXt:
    torch.manual_seed(0)
    settings = {"in_channels": 1, "num_classes": 2, "width": 4, "expansion": 2, "blocks": 1, **options}
    return MedNeXt(MedNeXtConfig(**settings))


OPTIONS = {
    "in_channels": "in_channels",
    "n_classes": "num_classes",
    "n_channels": "width",
    "exp_r": "expansion",
    "block_counts": "blocks",
    "kernel_size": "kernel_size",
    "kernel_size_to": "kernel_size",  # of UpKern's large network
    "deep_supervision": "deep_supervision",
    "do_res": "residual",
    "do_res_up_down": "residual_resampling",
    "dim": "spatial_dims",
}
"""Arguments of the authors' constructor in the golden files -> our options."""


def golden_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `create_model` for the network of a golden file; KeyError for an argument that is not known."""
    options = {OPTIONS[key]: value for key, value in config.items() if key != "kernel_size_from"}
    return {**options, "spatial_dims": {"2d": 2, "3d": 3}[options["spatial_dims"]]}


def golden(folder: Path, name: str) -> tuple[MedNeXt, dict[str, Tensor], dict]:
    tensors = load_file(folder / f"{name}.safetensors")
    facts = json.loads((folder / f"{name}.json").read_text())
    model = create_model("mednext_s", **golden_options(facts["config"]))
    weights = {
        key.removeprefix("state_dict."): value for key, value in tensors.items() if key.startswith("state_dict.")
    }
    report = load_official(model, "mednext", weights)
    assert (report.left_out, report.missing, report.mismatched) == (("dummy_tensor",), (), ())
    return model, tensors, facts


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_those_of_the_authors_code(golden_data, name):
    model, tensors, facts = golden(golden_data, name)
    with torch.no_grad():
        outputs = model.eval()(tensors["input"])
    assert len(outputs) == 5
    for index, output in enumerate(outputs):
        tolerance = facts["suggested_tolerance"]
        torch.testing.assert_close(
            output, tensors[f"output_{index}"], rtol=tolerance["rtol"], atol=tolerance["atol"][index]
        )


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        *((name, torch.float32, 2e-4) for name in GOLDEN),
        ("mednext_k3_small", torch.float64, 1e-6),
        pytest.param("mednext_k5_small", torch.float64, 1e-6, marks=pytest.mark.slow),
        pytest.param("mednext_upkern_small", torch.float64, 1e-6, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_of_the_authors_code(golden_data, name, dtype, tolerance):
    """float64 runs the plain forms of all operations, float32 the fast ones."""
    model, tensors, facts = golden(golden_data, name)
    expected = facts["grad_check"]
    model.to(dtype)
    x = tensors["input"].to(dtype).requires_grad_()
    loss = sum(output.square().mean() for output in model(x))
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss_value"], rel=tolerance)
    assert x.grad.norm().item() == pytest.approx(expected["input_grad_l2"], rel=tolerance)
    names = {ours: theirs for theirs, ours in key_pairs(expected["param_grad_l2"])}
    for key, parameter in model.named_parameters():
        norm = expected["param_grad_l2"][names[key]]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=tolerance, abs=1e-4), key


def key_pairs(official: dict[str, float]) -> list[tuple[str, str]]:
    return [(key, next(iter(convert("mednext", {key: torch.empty(0)})))) for key in official if key != "dummy_tensor"]


@pytest.mark.parametrize(
    ("name", "kernel_size", "without_heads", "with_heads"),
    [  # counted on the authors' code with 1 channel and 14 classes; theirs has one unused element more
        ("mednext_s", 3, 5_551_311, 5_564_807),
        ("mednext_s", 5, 5_980_943, 5_994_439),
        ("mednext_b", 3, 10_526_703, 10_540_199),
        ("mednext_b", 5, 10_956_335, 10_969_831),
        ("mednext_m", 3, 17_549_359, 17_562_855),
        ("mednext_m", 5, 18_261_231, 18_274_727),
        ("mednext_l", 3, 61_779_663, 61_793_159),
        ("mednext_l", 5, 62_993_295, 63_006_791),
    ],
)
def test_parameters_are_the_authors_less_the_dummy(name, kernel_size, without_heads, with_heads):
    for deep_supervision, theirs in ((False, without_heads), (True, with_heads)):
        config = MedNeXtConfig(
            in_channels=1, num_classes=14, kernel_size=kernel_size, deep_supervision=deep_supervision, **SIZES[name]
        )
        with torch.device("meta"):
            model = MedNeXt(config)
        assert sum(parameter.numel() for parameter in model.parameters()) == theirs - 1


def test_costs_in_the_paper_are_listed_for_both_kernels_of_every_published_size():
    printed = {name: [(cost.parameters_m, cost.gflops) for cost in entry.printed] for name, entry in ENTRIES.items()}
    assert printed == {
        "mednext_xs": [],
        "mednext_s": [(5.6, 130), (5.9, 169)],
        "mednext_b": [(10.5, 170), (11.0, 208)],
        "mednext_m": [(17.6, 248), (18.3, 308)],
        "mednext_l": [(61.8, 500), (63.0, 564)],
    }


def test_deep_supervision_switches_the_outputs_and_not_the_state_dict():
    model = small(deep_supervision=True)
    x = torch.randn(2, 1, 16, 32, 48)
    keys = set(model.state_dict())
    for mode in (True, False):
        outputs = model.train(mode)(x)
        assert [tuple(output.shape) for output in outputs] == [
            (2, 2, 16 // step, 32 // step, 48 // step) for step in (1, 2, 4, 8, 16)
        ]
    assert model.output_strides == [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16)]
    model.deep_supervision = False
    torch.testing.assert_close(model(x), outputs[0])
    assert model.output_strides == [(1, 1, 1)]
    assert set(model.state_dict()) == keys


def test_deep_supervision_without_heads_is_refused():
    with pytest.raises(ConfigError, match="Build it with deep_supervision=True"):
        small().deep_supervision = True


@pytest.mark.parametrize(
    ("size", "padded"),
    [((16, 24, 40), r"\(16, 32, 48\)"), ((16, 16, 16), r"\(16, 16, 32\)"), ((1, 1, 1), r"\(16, 16, 32\)")],
)
def test_sizes_that_do_not_fit_say_what_to_pad_to(size, padded):
    with pytest.raises(DataError, match=f"Pad the input to {padded}"):
        small()(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("shape", [(1, 2, 16, 16, 32), (1, 16, 16, 32), (1, 1, 1, 16, 16, 32)])
def test_inputs_of_another_kind_are_refused(shape):
    with pytest.raises(DataError, match=r"expects \(B, 1, D, H, W\)"):
        small()(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"norm": "layer"}, {"grn": True}, {"residual": False}, {"kernel_size": 5}])
@pytest.mark.parametrize("residual_resampling", [True, False])
def test_every_option_changes_the_result_and_every_parameter_learns(options, residual_resampling):
    x = torch.randn(1, 1, 16, 16, 32)
    reference = small()
    model = small(**options, residual_resampling=residual_resampling, deep_supervision=True)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    outputs = model(x)
    sum(output.square().mean() for output in outputs).backward()
    inert = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # With one group per channel the norm removes the depthwise bias; nothing else may be without effect.
    assert [key for key in inert if not key.endswith("depthwise.bias")] == []
    assert not torch.equal(outputs[0], reference(x))


@pytest.mark.parametrize("residual_resampling", [True, False])
@pytest.mark.parametrize("change", ["same", "down", "up"])
@pytest.mark.parametrize("size", [(4, 6, 8), (6, 8)])
def test_the_depthwise_bias_has_no_effect_before_group_norm_and_a_gradient_of_zero(change, size, residual_resampling):
    torch.manual_seed(0)
    config = small(spatial_dims=len(size), residual_resampling=residual_resampling).config
    kernel, stride = (5,) * len(size), (1 if change == "same" else 2,) * len(size)
    block = MedNeXtBlock(4, 4, expansion=2, kernel=kernel, config=config, change=change, stride=stride)
    torch.nn.init.normal_(block.depthwise.bias)
    inputs = [torch.randn(2, 4, *size), torch.randn(2, 4, *(2 * n for n in size))][: 2 if change == "up" else 1]
    results = []
    for forms in (nullcontext(), plain_forms()):
        block.zero_grad()
        with forms:
            y = block(*inputs)
        y.square().mean().backward()
        results.append({"output": y.detach(), **{key: value.grad for key, value in block.named_parameters()}})
    fast, plain = results
    for key, value in fast.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-4, atol=1e-6, msg=key)
    assert torch.equal(fast["depthwise.bias"], torch.zeros(4))


def test_the_depthwise_bias_counts_before_layer_norm():
    model = small(norm="layer")
    model(torch.randn(1, 1, 16, 16, 32)).square().mean().backward()
    assert all(value.grad.any() for key, value in model.named_parameters() if key.endswith("depthwise.bias"))


THIN = {
    "strides": ((1, 2, 2), (1, 2, 2), 2, (2, 1, 2)),
    "kernel_size": ((1, 3, 3), (1, 5, 5), 3, (3, 5, 5), 3),
    "deep_supervision": True,
}


def test_thick_slices_have_strides_and_kernels_of_their_own():
    model = small(**THIN)
    assert model.divisor == (4, 8, 16)
    assert model.output_strides == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 8, 16)]
    outputs = model(torch.randn(1, 1, 4, 8, 32))
    assert [tuple(output.shape[2:]) for output in outputs] == [
        tuple(n // step for n, step in zip((4, 8, 32), steps, strict=True)) for steps in model.output_strides
    ]
    assert [block[0].depthwise.kernel_size for block in model.encoder] == list(model.config.kernels)
    assert [block.depthwise.kernel_size for block in model.up] == list(model.config.kernels[1:])


def test_along_an_axis_without_strides_and_with_kernels_of_one_slices_do_not_mix():
    steps, kernel = ((1, 2, 2),) * 4, ((1, 3, 3),) * 5
    model = small(strides=steps, kernel_size=kernel, norm="layer")
    x = torch.randn(1, 1, 3, 16, 32)
    whole = model(x)
    for index in range(3):
        torch.testing.assert_close(model(x[:, :, index : index + 1]), whole[:, :, index : index + 1])
    flat = small(spatial_dims=2, norm="layer")
    flat.load_state_dict(
        {key: value.squeeze(2) if value.ndim == 5 else value for key, value in model.state_dict().items()}
    )
    torch.testing.assert_close(flat(x[:, :, 1]), whole[:, :, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("resampling", ["inverted", "standard"])
def test_thick_slices_are_the_same_in_fast_and_plain_forms(resampling):
    model = small(**THIN, resampling=resampling)
    x = torch.randn(2, 1, 4, 16, 32)
    results = []
    for forms in (nullcontext(), plain_forms()):
        model.zero_grad()
        with forms:
            outputs = model(x)
        sum(output.square().mean() for output in outputs).backward()
        results.append([*outputs, *(parameter.grad for parameter in model.parameters())])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


TWO, THICK = (2, 2, 2), (1, 2, 2)


@pytest.mark.parametrize(
    ("strides", "kernels", "expected"),
    [
        ((TWO,) * 4, ((3, 3, 3),) * 5, {}),
        ((TWO,) * 3, ((3, 3, 3),) * 4, {}),
        (
            (THICK, TWO, TWO, THICK, THICK),
            ((1, 3, 3), *((3, 3, 3),) * 5),
            {"strides": (THICK, TWO, TWO, THICK), "kernel_size": ((1, 3, 3), *((3, 3, 3),) * 4)},
        ),
    ],
)
def test_a_plan_of_thick_slices_sets_strides_and_kernels_and_no_other_does(strides, kernels, expected):
    strides = ((1, 1, 1), *strides)
    assert MedNeXtConfig.plan_options(SIZES["mednext_s"], strides, kernels) == expected
    config = small(**expected).config
    assert create_model("mednext_s", **json.loads(json.dumps(dataclasses.asdict(config)))).config == config
    five = MedNeXtConfig.plan_options({"kernel_size": 5}, strides, kernels)
    assert five.get("kernel_size") == (((1, 5, 5), *((5, 5, 5),) * 4) if expected else None)
    assert "kernel_size" not in MedNeXtConfig.plan_options({"kernel_size": (3, 3, 3, 5, 5)}, strides, kernels)
    assert MedNeXtConfig.plan_options({"spatial_dims": 2}, strides, kernels) == {}


@pytest.mark.parametrize("dims", [2, 3])
def test_standard_resampling_is_one_strided_convolution_each_way(dims):
    model = small(spatial_dims=dims, resampling="standard", deep_supervision=True)
    assert model.config.residual_resampling is False
    down, up = model.down[1].conv, model.up[1].conv
    assert down.weight.shape == (16, 8, *(2,) * dims)
    assert up.weight.shape == (16, 8, *(2,) * dims)  # transposed: channels in, channels out
    outputs = model(torch.randn(1, 1, *(32, 16, 16)[:dims]))
    sum(output.square().mean() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_standard_resampling_of_size_b_has_this_many_parameters():
    # MedNeXt-B k3 with 1 channel, 14 classes: stem 64, head 462, and per level of C channels, ratio R, two blocks in
    # each of its stages: C*27 + C + 2C + R*C*C + R*C + R*C*C + C = 2RC^2 + (31 + R)C each.
    # Resampling between C and 2C: 8 * C * 2C + 2C down, 8 * 2C * C + C up.
    def block(channels: int, ratio: int) -> int:
        return 2 * ratio * channels**2 + (31 + ratio) * channels

    stages = sum(4 * block(c, r) for c, r in ((32, 2), (64, 3), (128, 4), (256, 4))) + 2 * block(512, 4)
    resampling = sum(32 * c * c + 3 * c for c in (32, 64, 128, 256))
    with torch.device("meta"):
        model = create_model("mednext_b", in_channels=1, num_classes=14, resampling="standard")
    assert sum(parameter.numel() for parameter in model.parameters()) == 64 + 462 + stages + resampling


def test_grn_is_the_identity_at_the_start_and_reaches_every_block():
    model = small(grn=True)
    blocks = [key for key in model.state_dict() if key.endswith("grn_weight")]
    assert len(blocks) == 9 + 4 + 4
    plain = small()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "grn_" not in key})
    x = torch.randn(1, 1, 16, 16, 32)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_two_dimensional_networks_segment_slices(norm):
    model = small(spatial_dims=2, norm=norm, deep_supervision=True, grn=True)
    outputs = model(torch.randn(3, 1, 32, 48))
    assert [tuple(output.shape[2:]) for output in outputs] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert model.divisor == (16, 16)
    outputs[0].sum().backward()
    with pytest.raises(DataError, match=r"H, W = \(32, 40\).*\(32, 48\)"):
        model(torch.zeros(1, 1, 32, 40))


def test_encoder_parameters_are_those_before_the_decoder():
    model = small(deep_supervision=True)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    tops = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert tops == {"stem", "encoder", "down"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "odd"),
        ({"kernel_size": "3"}, "positive integer"),
        ({"width": 0}, "positive integer"),
        ({"in_channels": -1}, "positive integer"),
        ({"num_classes": 2.0}, "positive integer"),
        ({"blocks": (1, 2)}, "9 of them"),
        ({"blocks": [1] * 8 + [0]}, "9 of them"),
        ({"expansion": "2"}, "9 of them"),
        ({"norm": "batch"}, "one of 'group', 'layer'"),
        ({"spatial_dims": 4}, "2 or 3"),
        ({"spatial_dims": 2.0}, "a positive integer"),
        ({"residual": "False"}, "true or false"),
        ({"residual_resampling": 1}, "true or false"),
        ({"resampling": "pool"}, "one of 'inverted', 'standard'"),
        ({"resampling": "standard", "residual_resampling": True}, "needs inverted bottlenecks"),
        ({"strides": 3}, "steps of 1 or 2"),
        ({"strides": (2, 2, 2)}, "one number, or 4 entries"),
        ({"strides": (2, 2, 2, (2, 2))}, "D, H, W"),
        ({"strides": 0}, "positive integer"),
        ({"kernel_size": (3,) * 4}, "one number, or 5 entries"),
        ({"kernel_size": (3, 3, 3, 3, (2, 3, 3))}, "odd"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)

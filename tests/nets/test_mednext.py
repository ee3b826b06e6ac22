import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets.mednext import SIZES, MedNeXt, MedNeXtConfig
from voxelseg.nets.official import convert, load_official

GOLDEN = ["mednext_k3_small", "mednext_k5_small", "mednext_upkern_small"]


def small(**options: object) -> MedNeXt:
    torch.manual_seed(0)
    settings = {"in_channels": 1, "num_classes": 2, "width": 4, "expansion": 2, "blocks": 1, **options}
    return MedNeXt(MedNeXtConfig(**settings))


def golden(folder: Path, name: str) -> tuple[MedNeXt, dict[str, Tensor], dict]:
    tensors = load_file(folder / f"{name}.safetensors")
    facts = json.loads((folder / f"{name}.json").read_text())
    config = facts["config"]
    model = MedNeXt(
        MedNeXtConfig(
            in_channels=config["in_channels"],
            num_classes=config["n_classes"],
            width=config["n_channels"],
            expansion=config["exp_r"],
            blocks=config["block_counts"],
            kernel_size=config["kernel_size"] if "kernel_size" in config else config["kernel_size_to"],
            deep_supervision=True,
        )
    )
    weights = {
        key.removeprefix("state_dict."): value for key, value in tensors.items() if key.startswith("state_dict.")
    }
    load_official(model, "mednext", weights)
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


def test_checkpointing_changes_no_number():
    x = torch.randn(1, 1, 16, 16, 32)
    gradients = []
    for checkpointing in (False, True):
        model = small(checkpointing=checkpointing).train()
        model(x).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_encoder_parameters_are_those_before_the_decoder():
    model = small(deep_supervision=True)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    tops = {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()}
    assert tops == {"stem", "encoder", "down"}


def test_one_patch_is_learnt_by_heart():
    torch.manual_seed(1)
    x = torch.randn(1, 1, 16, 16, 32)
    target = (x[:, 0] > 0).long()
    model = small(width=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


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
        ({"norm": "batch"}, "'group' or 'layer'"),
        ({"spatial_dims": 4}, "2 or 3"),
        ({"residual": "False"}, "true or false"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)

import copy

import pytest
import torch
from logonet_golden import FORMS, Golden
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from voxelseg import optimize_for_inference
from voxelseg.errors import CheckpointError, ConfigError, DataError
from voxelseg.nets import NETWORKS, create_model
from voxelseg.nets.complexity import cost_in_papers
from voxelseg.nets.logonet import LoGoNet, LoGoNetConfig, join_cubes, run_as_one, split_cubes
from voxelseg.nets.official import convert, load_official
from voxelseg.ops.dispatch import plain_forms


def small(**options: object) -> LoGoNet:
    torch.manual_seed(0)
    settings = {"in_channels": 1, "num_classes": 3, "dims": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2)}
    return LoGoNet(LoGoNetConfig(**{**settings, "local_stages": 1, **options}))


def randomised(model: LoGoNet) -> LoGoNet:
    """Weights and statistics far from their initial values."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    for key, buffer in model.named_buffers():
        if key.endswith(("mean", "var")):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return model


@pytest.mark.parametrize("residual", FORMS)
def test_outputs_are_those_of_the_authors_code(golden_data, residual):
    Golden(golden_data, "logonet").check_outputs(residual)


@pytest.mark.parametrize("residual", FORMS)
def test_encoder_features_are_those_of_the_authors_code(golden_data, residual):
    golden, suffix = Golden(golden_data, "logonet"), FORMS[residual]
    model, x = golden.model(residual), golden.tensors["input"]
    nets = {"global": (model.global_net, x)}
    for number, (net, part) in enumerate(zip(model.local_nets, split_cubes(x, (2, 2, 2)), strict=True)):
        nets[f"local{number // 4}_{number // 2 % 2}_{number % 2}"] = (net, part)
    for name, (net, part) in nets.items():
        with torch.no_grad():
            features = net.encode(part)
        assert len(features) == (4 if name == "global" else 2)
        for stage, feature in enumerate(features):
            golden.assert_close(feature, f"{name}_skip_{stage}{suffix}", f"skips{suffix}")


def test_training_outputs_and_running_statistics_are_those_of_the_authors_code(golden_data):
    Golden(golden_data, "logonet").check_training()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_gradients_are_those_of_the_authors_code(golden_data, dtype, tolerance):
    """float64 runs the plain forms of all operations, float32 the fast ones."""
    Golden(golden_data, "logonet").check_gradients(dtype, tolerance)


@pytest.mark.parametrize("residual", ["prenorm", "algorithm3"])
def test_gradients_of_the_other_forms_are_those_of_their_loss(golden_data, residual):
    Golden(golden_data, "logonet").check_gradient_of_other_form(residual)


@pytest.mark.parametrize(
    ("name", "parameters", "shared", "gmacs", "thop"),
    [
        ("logonet", 67_579_560, 43_754_920, 245.80, 246.99),
        ("logonet_l", 172_580_904, 127_849_896, 486.01, 487.68),
    ],
)
def test_parameters_and_cost_are_those_of_the_authors_logs(name, parameters, shared, gmacs, thop):
    with torch.device("meta"):
        model = create_model(name, in_channels=1, num_classes=14)
        of_shared = sum(
            p.numel() for p in create_model(name, in_channels=1, num_classes=14, share_local=True).parameters()
        )
    assert of_shared == shared
    found, counted, macs = cost_in_papers(model, (96, 96, 96), convention="thop")
    assert found == parameters
    assert macs / 1e9 == pytest.approx(gmacs, abs=0.005)
    assert counted / 1e9 == pytest.approx(thop, abs=0.005)
    (printed,) = NETWORKS[name].printed
    assert counted / 1e9 == pytest.approx(printed.gflops, rel=2e-4)
    assert parameters / 1e6 == pytest.approx(printed.parameters_m, rel=2e-3)


def test_shared_local_networks_cost_what_the_others_cost():
    totals = []
    for share_local in (False, True):
        with torch.device("meta"), torch.no_grad(), plain_forms(), FlopCounterMode(display=False) as counter:
            small(share_local=share_local).eval()(torch.empty(1, 1, 16, 16, 16))
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1]


def test_cubes_are_cut_in_row_major_order_and_put_together_again():
    x = torch.arange(2 * 4 * 3 * 6).view(1, 2, 4, 3, 6)
    parts = split_cubes(x, (2, 1, 3))
    assert len(parts) == 6
    assert torch.equal(parts[1], x[:, :, :2, :, 2:4])  # W runs fastest
    assert torch.equal(parts[3], x[:, :, 2:, :, :2])
    assert torch.equal(join_cubes(parts, (2, 1, 3)), x)


def test_a_local_network_sees_its_part_alone():
    model = randomised(small(cubes_per_axis=(1, 2, 2))).eval()
    x = torch.randn(1, 1, 8, 16, 16)
    changed = x.clone()
    changed[:, :, :, 8:, :8] += 1  # part 2 of 4
    with torch.no_grad():
        difference = (model._local(changed) - model._local(x)).abs().amax((0, 1))  # (D, H, W)
    assert difference[:, 8:, :8].min() > 0
    difference[:, 8:, :8] = 0
    assert difference.max() == 0


@pytest.mark.parametrize("training", [True, False])
def test_networks_of_their_own_run_as_one_give_what_a_loop_gives(training):
    """Values, gradients and, after training, running statistics."""
    loop = randomised(small(cubes_per_axis=(1, 2, 2))).train(training)
    batch = small(cubes_per_axis=(1, 2, 2), local_execution="batch").train(training)
    batch.load_state_dict(loop.state_dict())
    x = torch.randn(2, 1, 8, 16, 24)
    results = []
    for model in (loop.double(), batch.double()):
        y = model(x.double())
        y.square().mean().backward()
        results.append(
            {"y": y.detach(), **{k: p.grad for k, p in model.named_parameters()}, **dict(model.state_dict())}
        )
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-8, atol=1e-10, msg=key)


def test_a_frozen_local_network_stays_frozen_whichever_way_they_run():
    loop = randomised(small(cubes_per_axis=(1, 2, 2))).train()
    batch = small(cubes_per_axis=(1, 2, 2), local_execution="batch").train()
    batch.load_state_dict(loop.state_dict())
    x = torch.randn(2, 1, 8, 16, 24)
    for model in (loop, batch):
        model.local_nets[1].eval()
    torch.testing.assert_close(batch(x), loop(x))
    for key, value in loop.state_dict().items():
        torch.testing.assert_close(batch.state_dict()[key], value, msg=key)


def test_networks_run_as_one_keep_their_order():
    nets = nn.ModuleList(nn.BatchNorm3d(1) for _ in range(3)).eval()
    for number, net in enumerate(nets):
        nn.init.constant_(net.bias, number)
    outputs = run_as_one(nets, [torch.zeros(1, 1, 1, 1, 2)] * 3)
    assert [output.tolist() for output in outputs] == [[[[[[number] * 2]]]] for number in (0.0, 1.0, 2.0)]


def test_a_shared_local_network_gives_the_same_in_a_loop_once_it_is_trained():
    model = randomised(small(share_local=True)).eval()
    loop = small(share_local=True, local_execution="loop").eval()
    loop.load_state_dict(model.state_dict())
    assert len(model.local_nets) == 1
    x = torch.randn(2, 1, 16, 16, 32)
    torch.testing.assert_close(loop(x), model(x), rtol=1e-4, atol=1e-4)
    difference = loop.train()(x) - model.train()(x)  # batch norms over one part, over all parts
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("residual", FORMS)
def test_folded_networks_give_the_same_with_fewer_layers(residual):
    model = randomised(small(residual=residual)).eval()
    fast = optimize_for_inference(model)
    x = torch.randn(1, 1, 16, 16, 32)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(fast(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert isinstance(fast.norm, nn.Identity)
    assert len(fast.state_dict()) < len(model.state_dict()) / 2


def test_plain_and_fast_forms_give_the_same_values_and_gradients():
    model = randomised(small(cubes_per_axis=(2, 1, 1), share_local=True)).train()
    x = torch.randn(2, 1, 16, 8, 24)
    results = []
    for twin, dtype in ((model, torch.float32), (copy.deepcopy(model), torch.float64)):  # float64 has plain forms only
        y = twin.to(dtype)(x.to(dtype))
        y.square().mean().backward()
        results.append({"y": y.detach(), **{key: p.grad for key, p in twin.named_parameters()}})
    largest = max(value.abs().max() for value in results[1].values())
    for key, value in results[1].items():
        assert (results[0][key] - value).norm() < 2e-3 * value.norm() + 1e-5 * largest, key


@pytest.mark.parametrize(
    ("options", "divisor"),
    [
        ({}, (8, 8, 8)),  # global 8, local 2 * 4
        ({"cubes_per_axis": 1}, (8, 8, 8)),
        ({"cubes_per_axis": (3, 1, 4)}, (24, 8, 16)),  # local 3 * 4 and 8 have 24 in common
        ({"local_stages": 2}, (16, 16, 16)),
    ],
)
def test_parts_of_a_fitting_input_fit_the_local_networks(options, divisor):
    model = small(**options).eval()
    assert model.divisor == divisor
    assert len(model.local_nets) == torch.tensor(model.cubes_per_axis).prod()
    assert model(torch.randn(1, 1, *divisor)).shape == (1, 3, *divisor)
    with pytest.raises(DataError, match="needs multiples of"):
        model(torch.randn(1, 1, divisor[0] + 4, *divisor[1:]))


def test_features_need_not_be_as_many_as_classes():
    model = small(feature_channels=5)
    assert model.conv.weight.shape[:2] == (5, 5)
    assert model.classifier.weight.shape[:2] == (3, 5)
    assert {net.fusion.second.conv.out_channels for net in (model.global_net, *model.local_nets)} == {5}
    assert model(torch.randn(2, 1, 8, 8, 16)).shape == (2, 3, 8, 8, 16)


def test_encoder_parameters_are_those_of_all_networks_before_their_decoders():
    model = small()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    found = [names[id(parameter)].split(".") for parameter in model.encoder_parameters()]
    assert {part for parts in found for part in parts if part in ("stem", "stages", "ups", "fusion")} == {
        "stem",
        "stages",
    }
    assert {".".join(parts[:2]) for parts in found if parts[0] == "local_nets"} == {f"local_nets.{n}" for n in range(8)}
    assert {parts[0] for parts in found} == {"global_net", "local_nets"}


TWO, THICK = (2, 2, 2), (1, 2, 2)


def test_isotropic_plans_keep_the_published_network():
    planned = LoGoNetConfig.plan_options({}, ((1, 1, 1), *[TWO] * 5), ((3, 3, 3),) * 6)
    planned_config = LoGoNetConfig(in_channels=1, num_classes=2, **planned)
    assert planned_config == LoGoNetConfig(in_channels=1, num_classes=2)


@pytest.mark.parametrize(
    ("strides", "cubes", "divisor"),
    [
        # D is halved twice, and before the local networks end: parts of it would need twice the patch.
        (((1, 1, 1), THICK, TWO, TWO, THICK, THICK), (1, 2, 2), (4, 32, 32)),
        (((1, 1, 1), TWO, THICK, THICK, THICK), (1, 2, 2), (2, 32, 32)),
        (((1, 1, 1), THICK, THICK, THICK, THICK), (1, 2, 2), (1, 32, 32)),
        (((1, 1, 1), THICK, THICK, THICK, TWO), (2, 2, 2), (2, 32, 32)),  # local networks do not halve D
    ],
)
def test_thin_volumes_are_cut_where_they_can_be(strides, cubes, divisor):
    planned = LoGoNetConfig.plan_options({"local_stages": 2}, strides, ((1, 3, 3), *[(3, 3, 3)] * 4))
    assert planned["cubes_per_axis"] == cubes
    options = {"dims": (4, 4, 4, 4), "depths": (1,) * 4, "mlp_ratios": (1,) * 4, "local_stages": 2, **planned}
    model = small(**options).eval()
    assert model.divisor == divisor
    size = (divisor[0] * 3, 32, 64)
    with torch.no_grad():
        assert model(torch.randn(1, 1, *size)).shape == (1, 3, *size)


def test_official_weights_are_loaded_and_names_of_others_refused(golden_data):
    golden = Golden(golden_data, "logonet")
    assert len(golden.official) == golden.facts["n_state_entries"]
    model = golden.model("released")
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params"]
    own = model.state_dict()
    theirs = golden.official["van1_0_1.van3d.block1.0.attn.spatial_gating_unit.conv0.weight"]
    assert torch.equal(own["local_nets.5.stages.0.blocks.0.attention.local.weight"], theirs)
    for key in ("van2_0_0.first_conv.0.weight", "conv.2.weight", "van.first_conv.2.weight", "van3d.norm1.weight"):
        with pytest.raises(CheckpointError, match="not a parameter of the official logonet"):
            convert("logonet", {key: torch.zeros(1)})
    for key in ("van3d.block1.0.attn.conv9.weight", "upsample0.6.weight", "conv.0.weight"):
        with pytest.raises(CheckpointError, match="not a parameter of the official ulkanet"):
            convert("ulkanet", {key: torch.zeros(1)})


def test_pre_trained_weights_for_other_classes_keep_all_but_the_last_layers(golden_data):
    golden = Golden(golden_data, "logonet")
    pretrained = {key: value for key, value in golden.official.items() if not key.startswith("conv.")}
    model = create_model(
        "logonet", in_channels=2, num_classes=5, dims=(4, 8, 16, 32), depths=(1, 1, 2, 1), mlp_ratios=(3, 2, 2, 2)
    )
    report = load_official(model, "logonet", {**pretrained, "pre_train_proj.conv.weight": torch.zeros(2)})
    assert report.left_out == ("pre_train_proj.conv.weight",)
    assert {name.split(".")[0] for name in report.missing} == {"conv", "norm", "classifier"}
    assert len(report.missing) == 2 + 5 + 2
    assert all(".fusion." in name for name in report.mismatched)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cubes_per_axis": 0}, "cubes_per_axis"),
        ({"cubes_per_axis": (2, 2)}, "cubes_per_axis"),
        ({"local_stages": 3}, "at most one per dims"),
        ({"local_stages": 0}, "positive integer"),
        ({"share_local": "yes"}, "true or false"),
        ({"local_execution": "grouped"}, "one of 'auto', 'loop', 'batch'"),
        ({"residual": "none"}, "one of 'algorithm3'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)

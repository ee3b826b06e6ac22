import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.rapnet import RAPNet, _masks
from voxelseg.nets.complexity import count

TINY = {"width": 4, "strides": (2, 2)}


def tiny(**options: object) -> RAPNet:
    torch.manual_seed(0)
    return create_model("rapnet", **{"in_channels": 1, "num_classes": 3, **TINY, **options})


def test_both_stages_together_have_the_printed_size():
    with torch.device("meta"):
        model = create_model("rapnet", in_channels=1, num_classes=5)
    assert sum(parameter.numel() for parameter in model.parameters()) == 38_142_055  # 38.2 M in print


def gmacs(size: int, **options: object) -> float:
    with torch.device("meta"):
        model = create_model("rapnet", in_channels=1, **options)
    return count(model, (size,) * 3).macs / 1e9


def test_the_stages_cost_what_the_docstring_says():
    whole = gmacs(96, num_classes=5)
    fine = whole - gmacs(96, num_classes=4)  # one pass less; the coarse head's share is below the digits here
    assert (round(fine, 1), round(whole - 4 * fine, 1), round(whole, 1)) == (825.1, 68.7, 3368.9)
    assert round(gmacs(96, num_classes=5, prior="all"), 1) == 896.2
    assert round(gmacs(48, num_classes=5) - gmacs(48, num_classes=4), 1) == 103.1


@pytest.mark.parametrize("prior", ["single", "all"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_reach_every_parameter_of_both_stages(prior, channels):
    model = tiny(in_channels=channels, prior=prior).train()
    out = model(torch.randn(2, channels, 12, 16, 8))
    assert out.shape == (2, 3, 12, 16, 8)
    (out * torch.linspace(0, 1, out.numel()).view_as(out)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_masks_are_binary_and_have_the_gradient_of_the_probabilities():
    coarse = torch.randn(1, 3, 2, 3, 4, requires_grad=True)
    masks = _masks(coarse, torch.Size((4, 6, 8)))
    assert set(masks.detach().unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(masks.sum(1), torch.ones(1, 4, 6, 8))
    probe = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((masks * probe).sum(), coarse)
    soft = torch.nn.functional.interpolate(coarse.softmax(1), size=(4, 6, 8), mode="trilinear")
    (expected,) = torch.autograd.grad((soft * probe).sum(), coarse)
    torch.testing.assert_close(gradient, expected)


def test_each_class_is_refined_alone_from_its_own_mask():
    model = tiny().eval()
    x = torch.randn(2, 1, 12, 8, 16)
    masks = (torch.rand(2, 2, 12, 8, 16) > 0.5).float()
    logits = model.refine_each(x, masks)
    assert not logits[:, 0].any()
    for organ in (1, 2):
        two = model.fine(torch.cat((x, masks[:, organ - 1 : organ]), dim=1))
        torch.testing.assert_close(logits[:, organ], two[:, 1] - two[:, 0])


def test_with_two_classes_the_softmax_is_that_of_the_fine_stage():
    model = tiny(num_classes=2).eval()
    x, mask = torch.randn(1, 1, 12, 8, 16), torch.ones(1, 1, 12, 8, 16)
    expected = model.fine(torch.cat((x, mask), dim=1)).softmax(1)
    torch.testing.assert_close(model.refine_each(x, mask).softmax(1), expected)


def test_coarse_logits_are_the_second_output_of_deep_supervision():
    model = tiny(deep_supervision=True).eval()
    assert model.output_strides == [(1, 1, 1), (3, 2, 2)]
    assert model.divisor == (12, 8, 8)  # 3 * 2 * 2 along D
    x = torch.randn(1, 1, 12, 16, 8)
    fine, coarse = model(x)
    assert coarse.shape == (1, 3, 4, 8, 4)
    model.deep_supervision = False
    torch.testing.assert_close(model(x), fine)


def test_thick_slices_are_neither_pooled_nor_coarsened_where_the_plan_does_not():
    full, flat = (2, 2, 2), (1, 2, 2)
    plan_options = tiny().config.plan_options
    isotropic = plan_options({}, ((1, 1, 1), full, full, full), ())
    assert isotropic == {"strides": (full, full, full), "coarse_strides": (3, 2, 2)}
    thick = plan_options({}, ((1, 1, 1), flat, flat, full), ())
    assert thick == {"strides": (flat, flat, full), "coarse_strides": (1, 2, 2)}
    assert tiny(**thick)(torch.randn(2, 1, 2, 16, 32)).shape == (2, 3, 2, 16, 32)
    assert plan_options({}, ((1, 1, 1),), ()) == {"strides": ((1, 1, 1),) * 3, "coarse_strides": (1, 1, 1)}


def test_fused_it_says_the_same():
    model = tiny()
    with torch.no_grad():
        model.train()(torch.randn(2, 1, 12, 8, 16))  # running statistics other than 0 and 1
    model.eval()
    x = torch.randn(1, 1, 12, 8, 16)
    expected = model(x)
    model.fuse()
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(12, 16, 8\)"):
        tiny()(torch.zeros(1, 1, 8, 9, 8))


def test_encoder_parameters_are_those_of_both_encoders():
    model = tiny()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    encoding = {".".join(names[id(parameter)].split(".")[:2]) for parameter in model.encoder_parameters()}
    assert encoding == {"coarse.encoder", "fine.encoder"}
    assert next(model.encoder_parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "besides the background"),
        ({"prior": "none"}, "'single', 'all'"),
        ({"strides": ()}, "at least one step"),
        ({"coarse_strides": (2, 2)}, "three of them"),
        ({"width": 0}, "positive integer"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)

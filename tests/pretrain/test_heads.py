import pytest
import torch
import torch.nn.functional as F

from voxelseg.pretrain.heads import PaperHead, SliceHead, in_slice_axes

SIZES = (3, 5, 2)
CROP = (6, 20, 9)  # D, H, W


def features(slice_axis=0, batch=2):
    return torch.randn(batch, 4, *CROP, generator=torch.Generator().manual_seed(slice_axis))


def chosen(slice_axis=0):
    """Slices 1 and 2 of the first sample and the last one of the second."""
    mask = torch.zeros(2, CROP[slice_axis], dtype=torch.bool)
    mask[0, 1:3] = mask[1, -1] = True
    return mask


def head(name, slice_axis=0):
    torch.manual_seed(0)
    if name == "paper":
        return PaperHead(4, SIZES, crop_size=CROP, slice_axis=slice_axis, num_classes=6)
    return SliceHead(4, SIZES, crop_size=CROP, slice_axis=slice_axis, hidden=16)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize(("name", "num_classes"), [("slice", 5), ("paper", 6)])
def test_logits_are_those_of_the_chosen_slices_and_of_clusters_that_there_are(name, num_classes, slice_axis):
    logits = head(name, slice_axis)(features(slice_axis), chosen(slice_axis))
    assert logits.shape == (3, 3, num_classes)
    possible = torch.arange(num_classes) < torch.tensor(SIZES)[:, None]
    assert (logits.isfinite() == possible).all()
    assert (logits[:, ~possible] == -torch.inf).all()


@pytest.mark.parametrize("name", ["slice", "paper"])
def test_a_batch_of_one_keeps_its_axes(name):
    assert head(name)(features(batch=1), chosen()[:1]).shape[:2] == (2, 3)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_a_slice_s_logits_depend_on_that_slice_alone_and_in_the_order_of_the_slices(slice_axis):
    x = features(slice_axis).requires_grad_()
    found = head("slice", slice_axis)(x, chosen(slice_axis))
    found[1, 0, :3].sum().backward()  # the second of them: slice 2 of sample 0
    seen = x.grad.movedim(2 + slice_axis, 1).flatten(2).abs().sum(2) > 0
    assert seen.nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_cells_are_those_of_adaptive_pooling(slice_axis):
    # Of 6, 20, 9 voxels: at most 8 cells, and as many as there are voxels along D
    found = head("slice", slice_axis)
    pooled_in = {}
    found.hidden[0].register_forward_hook(lambda _, inputs, __: pooled_in.update(x=inputs[0]))
    found(features(slice_axis), chosen(slice_axis))
    size = [CROP[axis] if axis == slice_axis else min(8, CROP[axis]) for axis in range(3)]
    expected = F.adaptive_avg_pool3d(features(slice_axis), size).movedim(2 + slice_axis, 1).flatten(2)
    torch.testing.assert_close(pooled_in["x"], expected[chosen(slice_axis)])


def test_only_chosen_slices_pass_the_linear_layers():
    found, rows = head("slice"), []
    found.last.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    found(features(), chosen())
    assert rows == [3]


def test_logits_of_the_slice_head_have_full_precision_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head("slice")(features(), chosen())
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_no_chosen_slice_gives_no_logits():
    assert head("slice")(features(), torch.zeros(2, 6, dtype=torch.bool)).shape == (0, 3, 5)


def test_the_paper_s_head_has_as_many_weights_as_its_algorithm():
    # 96^3 voxels, 14 features, 80 clusterers of up to 500 clusters: 8.53 million
    with torch.device("meta"):
        found = PaperHead(14, [500] * 80, crop_size=(96, 96, 96), slice_axis=2, num_classes=500)
    convolutions = 14 * 80 * 27 + 80 + 80 * 80 * 27 + 80  # to clusterers
    convolutions += 96 * 500 * 27 + 500 + 500 * 500 * 27 + 500  # to clusters
    convolutions += 96 * 6 * 27 + 6 + 6 * 27 + 1  # over rows, 96 // 16 = 6
    convolutions += 96 * 96 * 27 + 96 + 96 * 96 + 96  # over slices
    norms = 2 * (80 + 80 + 500 + 500 + 6 + 1 + 96)
    assert sum(parameter.numel() for parameter in found.parameters()) == convolutions + norms == 8_526_687


def test_the_paper_s_head_never_returns_a_negative_logit():
    found = head("paper").eval()(features(), chosen())
    assert (found[found.isfinite()] >= 0).all()


def test_axes_of_a_slice():
    assert [in_slice_axes(axis) for axis in range(3)] == [(1, 2), (0, 2), (0, 1)]

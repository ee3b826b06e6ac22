import pytest
import torch

from voxelseg.ops.upsample import add_upsampled, add_upsampled_plain


@pytest.mark.parametrize(
    ("size", "stride"), [((2, 3, 4), 2), ((3, 4), 2), ((2, 3, 4), (1, 2, 2)), ((3, 1, 5), (2, 1, 2)), ((3, 4), (1, 1))]
)
@pytest.mark.parametrize("with_residual", [True, False])
def test_scatter_add_agrees_with_padding(size, stride, with_residual):
    torch.manual_seed(0)
    steps = (stride,) * len(size) if isinstance(stride, int) else stride
    fine = [n * step for n, step in zip(size, steps, strict=True)]
    skip = torch.randn(2, 3, *fine, requires_grad=True)
    branch = torch.randn(2, 3, *(n - step + 1 for n, step in zip(fine, steps, strict=True)), requires_grad=True)
    residual = torch.randn(2, 3, *size, requires_grad=True) if with_residual else None
    inputs = [x for x in (skip, branch, residual) if x is not None]
    out = add_upsampled(skip, branch, residual, stride=stride)
    expected = add_upsampled_plain(skip, branch, residual, stride=stride)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for a, b in zip(torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(a, b)


def test_plane_zero_is_the_skip_and_odd_voxels_get_all_three():
    skip, branch, residual = (
        torch.full((1, 1, 4, 4, 4), 1.0),
        torch.full((1, 1, 3, 3, 3), 10.0),
        torch.full((1, 1, 2, 2, 2), 100.0),
    )
    out = add_upsampled(skip, branch, residual)
    assert out[0, 0, 0].unique().tolist() == [1.0]
    assert out[0, 0, 1, 1].tolist() == [1.0, 111.0, 11.0, 111.0]
    assert skip.unique().tolist() == [1.0]


def test_along_an_axis_of_stride_one_all_are_added_index_by_index():
    skip, branch, residual = (
        torch.full((1, 1, 2, 4), 1.0),
        torch.full((1, 1, 2, 3), 10.0),
        torch.full((1, 1, 2, 2), 100.0),
    )
    out = add_upsampled(skip, branch, residual, stride=(1, 2))
    assert out[0, 0].tolist() == [[1.0, 111.0, 11.0, 111.0]] * 2

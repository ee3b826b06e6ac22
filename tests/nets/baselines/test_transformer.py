import pytest
import torch
import torch.nn.functional as F

from voxelseg.nets.baselines.transformer import TransformerLayer


def test_a_layer_is_attention_and_mlp_with_residuals():
    torch.manual_seed(0)
    layer, x = TransformerLayer(6, heads=2, mlp_width=10).double(), torch.randn(2, 5, 6).double()
    normed = F.layer_norm(x, (6,), layer.attention_norm.weight, layer.attention_norm.bias)
    query, key, value = (normed @ weight.T for weight in layer.qkv.weight.split(6))
    heads = []
    for head in (slice(0, 3), slice(3, 6)):  # three channels each
        scores = query[..., head] @ key[..., head].transpose(1, 2) / 3**0.5
        heads.append(scores.softmax(-1) @ value[..., head])
    y = x + torch.cat(heads, dim=-1) @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x), y + layer.mlp(layer.mlp_norm(y)))


def test_dropout_is_for_training_alone():
    layer, x = TransformerLayer(6, heads=2, mlp_width=10, dropout=0.5), torch.randn(2, 5, 6)
    assert not torch.equal(layer.train()(x), layer(x))
    torch.testing.assert_close(layer.eval()(x), layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_has_a_bias_or_none(bias):
    layer = TransformerLayer(6, heads=3, mlp_width=10, bias=bias)
    assert (layer.mlp[3].bias is not None) == bias

"""Transformer layer of (B, N, C) tokens, as several of the networks here have it.

B batch, N tokens, C channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class TransformerLayer(nn.Module):
    """Self-attention and MLP, each after layer norm and with a residual; queries, keys and values have no bias."""

    def __init__(
        self, width: int, *, heads: int, mlp_width: int, dropout: float = 0.0, eps: float = 1e-5, bias: bool = True
    ) -> None:
        """`dropout` is the share of attention weights and of values after attention and MLP layers dropped in training.

        `bias` is that of the MLP's last layer.
        """
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width, bias=bias),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C)."""
        query, key, value = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)  # (B, heads, N, C / heads)
        x = x + F.dropout(self.out(attended.transpose(1, 2).flatten(2)), dropout)
        mixed: Tensor = x + self.mlp(self.mlp_norm(x))
        return mixed

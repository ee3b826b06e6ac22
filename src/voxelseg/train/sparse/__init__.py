"""Dynamic sparse feature fusion: masks whose active kernels move during training."""

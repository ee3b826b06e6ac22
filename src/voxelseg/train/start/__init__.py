"""Where a training starts: fresh weights, those of another training, or those of smaller kernels."""

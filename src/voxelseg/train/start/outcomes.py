"""What may become of a tensor when a training starts from other weights; for readers of a report, without torch."""

OUTCOMES = {
    "matched": "taken",
    "grown": "taken, kernels grown",
    "averaged": "taken, channels averaged",
    "fresh_heads": "heads, start fresh",
    "untrained": "not pre-trained, start fresh",
    "missing": "not in the file, start fresh",
    "mismatched": "of another shape, start fresh",
    "left_out": "in the file only",
}
"""Words for each of them."""

"""Data sets on disk: cases, labels, layouts, splits, checks."""

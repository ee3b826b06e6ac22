"""Pseudo-labels of slices: many k-means clusterers, fitted once and kept, and the labels of all of them at a time."""

"""Figures of a comparison: each module draws one kind from plain values and says in words what it shows."""

"""Contestants compared: their scores, statistics, costs, and what follows from them."""

"""A fair benchmark: many networks, trained on the same folds, patches and budget, and compared."""

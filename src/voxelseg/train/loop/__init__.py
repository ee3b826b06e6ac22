"""The training loop: steps, running validation, states, the log."""

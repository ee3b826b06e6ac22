"""Training: configuration, schedule, loop, validation, log."""

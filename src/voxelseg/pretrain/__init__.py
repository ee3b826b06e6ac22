"""Learning from scans without labels, so that fewer labels are needed afterwards."""

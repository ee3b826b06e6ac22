"""Processes, memory and disks: what a training runs on."""

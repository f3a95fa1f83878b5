"""Losses, schedules, checkpoints, summaries and the training loop."""

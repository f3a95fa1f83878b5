"""Losses, schedules, checkpoints, summaries, the training loop and the cluster it runs on."""

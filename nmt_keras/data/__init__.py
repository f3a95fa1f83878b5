"""Parallel text and languages, the batch plan, and batches of ids."""

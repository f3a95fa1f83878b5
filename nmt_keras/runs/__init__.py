"""Run directories: what is in them, what may change when a run goes on, and loading it."""

"""Experiments: one file per corpus or paper setting, each with a `get_config`."""

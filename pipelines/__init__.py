"""The absl jobs, one per file: flags, configuration, build, call, report."""

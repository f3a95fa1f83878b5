"""Search over a step function; imports no model and no configuration."""

"""What comes with the toolkit to try it."""

"""Exports for TF Serving, their proof, and clients of them."""

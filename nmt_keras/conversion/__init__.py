"""Trained models as other programs take them."""

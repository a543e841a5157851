"""Trained models as scorers."""

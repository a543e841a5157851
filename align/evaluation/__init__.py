"""Measuring a policy on held-out prompts and pairs."""

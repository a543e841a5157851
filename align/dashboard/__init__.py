"""Dashboards of Weights & Biases, built from the metrics that runs logged."""

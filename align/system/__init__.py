"""Processes, random state, signals, charts, lazy imports, and files that are whole or not there."""

"""Processes, random state, signals, and files that are whole or not there."""

"""The command line: everything between ``scripts/run.py`` and the Python API.

`parse` turns the words typed into checked settings before PyTorch is imported; `launch` makes objects of the settings
and runs them; `evaluate` is a command of its own.
"""

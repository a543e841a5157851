"""The command line: everything between ``scripts/run.py`` and the Python API.

What can be wrong in the words typed is answered here, before PyTorch is imported: `command` reads them,
`compose` makes a checked `RunConfig` of them with Hydra, `execute` hands it to the library.
"""

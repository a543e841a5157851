"""Experiments on the claims of the papers: each is a file of ``configs/experiment/``, written before it is run."""

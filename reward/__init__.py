"""Reward modelling and scorers: everything that gives a response a number, under one interface.

Scorers follow :class:`align.scoring.scorer.Scorer` and are found through the ``align.scorers`` entry points.
"""

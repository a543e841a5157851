"""Scorers: their interface, the checked table of scores, and how a configuration names them."""

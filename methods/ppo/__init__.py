"""Proximal policy optimisation and its critic-free relatives."""

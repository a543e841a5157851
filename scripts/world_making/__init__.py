"""How the shipped models and data of the world are made; `scripts/make_world.py` runs it. Needs torch."""

"""Makes the shipped models and data of the embedded world; run by `scripts/make_world.py`."""

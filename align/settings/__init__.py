"""The settings of a run: dataclasses that check themselves, and the registry of names."""

"""What a run is made of: dataclasses that check themselves, and the registry of names."""

"""A run examined before it: this machine, its data as the model reads them, and one trial step."""

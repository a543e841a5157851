"""From typed words to checked settings; nothing here imports PyTorch."""

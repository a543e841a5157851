"""Drawing responses from the role in use."""

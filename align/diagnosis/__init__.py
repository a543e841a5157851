"""Rules on the course of a run: whether it is healthy, and what to try where it is not."""

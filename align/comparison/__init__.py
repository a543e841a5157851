"""Comparing methods on the same data: differences and how sure they are, length control, the answer, the page."""

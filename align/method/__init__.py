"""The interface of a method: a loss over log-probabilities, and what an on-line method adds to it."""

"""A batch through a model: layouts, log-probabilities, roles, and the policy that holds them together."""

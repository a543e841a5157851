"""The model side: batches, their layout as model inputs, log-probabilities, roles and the policy."""

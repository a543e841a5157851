"""Methods that train a reward: reward modelling and the pairwise ranker."""

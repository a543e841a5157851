"""A person says which of two answers is better: pairs, judgements, the page, and what came of it."""

"""Scores from elsewhere: a reward server, its client, and a language model as judge."""

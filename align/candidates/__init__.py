"""Candidates: responses drawn, scored and kept before training."""

"""Rejection-sampling fine-tuning: the method, the selection of samples, and the equations it reads."""

"""Rules and verifiers: scores that a program can check."""

"""The benchmarks behind ``scripts/bench.py``."""

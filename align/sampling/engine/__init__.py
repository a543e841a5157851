"""Engines: whoever draws the responses of a run, the built-in decode loop or a server that holds the policy's base."""

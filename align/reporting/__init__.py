"""The report of a run, or of several side by side: a page made of nothing but what is in their folders."""

"""Several scorers as one."""

"""From checked settings to an exit code."""

"""The report as a page, and what stands on it."""

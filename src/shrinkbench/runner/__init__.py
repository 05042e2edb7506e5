"""From a plan to stored results."""

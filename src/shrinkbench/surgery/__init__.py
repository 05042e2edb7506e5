"""From masks to a physically smaller network that computes the same."""

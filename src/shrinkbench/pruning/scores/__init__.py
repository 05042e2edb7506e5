"""Which units matter: each function is a score, and the methods that use it are registered above it."""

"""Sizes, computation and quality of networks: one definition each."""

"""Honest, repeatable comparison of neural network pruning methods."""

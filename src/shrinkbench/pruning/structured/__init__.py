"""Structured pruning: whole filters, channels, blocks and heads, and the methods that choose among them."""

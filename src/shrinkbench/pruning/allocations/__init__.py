"""How many units stay in which layer: one axis of a pruning method."""

"""When pruning happens: one axis of a pruning method."""

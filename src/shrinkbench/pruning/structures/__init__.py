"""What is removed together: one axis of a pruning method."""

"""What the report reasons about, and with which statistics."""

"""Training, fine-tuning and evaluation from recipes that are values."""

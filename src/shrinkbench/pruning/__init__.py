"""Pruning methods: structure x scoring x allocation x scheduling x fine-tuning."""

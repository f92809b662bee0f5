"""Measurements: tensors in, scores out."""

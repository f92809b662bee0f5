"""Measurements: an evaluator's `run(model)` yields (name, value)."""

from unmask.evals.harmonic import harmonic_fill
from unmask.evals.reconstruction import HeldOutReconstruction, interpolated_statistics, masked_pixels

__all__ = ["HeldOutReconstruction", "harmonic_fill", "interpolated_statistics", "masked_pixels"]

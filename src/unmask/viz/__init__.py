"""Pictures: tensors and numbers in, a picture or a page out. Nothing here reads or writes a file."""

from unmask.viz.curves import training_curves
from unmask.viz.reconstruction import mask_ratio_strip, reconstruction_grid
from unmask.viz.report import Table, report_html

__all__ = ["Table", "mask_ratio_strip", "reconstruction_grid", "report_html", "training_curves"]

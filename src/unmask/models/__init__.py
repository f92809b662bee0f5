"""What is built on the encoder."""

from unmask.models.classifier import Classifier, drop_path_keep, set_trainable

__all__ = ["Classifier", "drop_path_keep", "set_trainable"]

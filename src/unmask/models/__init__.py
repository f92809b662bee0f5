"""What is built on the encoder; each model's spec stands in a module of its own, without torch."""

"""Transformer models: import from a local folder, plain reference, calibration, and the model over blocks."""

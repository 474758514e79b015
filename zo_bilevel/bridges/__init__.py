"""Bridges to where people already work: TensorBoard, pandas, Optuna, Nevergrad, scipy."""

"""Telling other programs how a training goes: TensorBoard, MLflow."""

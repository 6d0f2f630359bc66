"""Offline distillation: a teacher's predictions for prepared rows, written once and read at random during training."""

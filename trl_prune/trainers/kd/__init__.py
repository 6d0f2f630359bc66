"""Knowledge distillation (arXiv 2407.14679, 2408.11796)."""

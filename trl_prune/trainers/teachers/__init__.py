"""Teachers: a model in memory, on the student's own tensors, or a cache of its predictions."""

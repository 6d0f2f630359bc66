"""Datasets: read, format, batch, generate answers, rewrite them, cache a teacher's predictions; starter rows."""

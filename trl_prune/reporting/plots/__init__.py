"""The figures: one function and one `Panel` each."""

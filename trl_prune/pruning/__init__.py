"""A model becomes smaller: families, importance, selection, surgery."""

"""A run of a recipe: its folder, what is resolved once, and what its sections mean for the mechanisms below."""

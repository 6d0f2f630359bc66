"""The verbs: one file a stage."""

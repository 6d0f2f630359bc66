"""The verbs: one file per stage, each with its `STAGE`."""

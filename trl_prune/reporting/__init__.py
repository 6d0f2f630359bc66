"""What a run shows: figures, tables, the report's pages, the terminal and the model card."""

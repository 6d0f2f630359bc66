"""Surgery: apply a pruning plan to a checkpoint folder and write a smaller one; live modules are never edited."""

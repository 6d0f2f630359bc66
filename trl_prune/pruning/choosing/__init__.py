"""Which units of each axis a pruned model keeps: by scores, by measured effect, at random, at once or in rounds."""

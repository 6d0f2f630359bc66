"""Several recovered models become one, with mergekit."""

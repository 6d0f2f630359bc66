"""Merge recipes for mergekit: its own YAML, with named placeholders that `trl-prune merge` fills.

`$name` is a value to give, `${name:-default}` one that may be left out. `$model_1` and `$model_2` are the models; an
item of a list that names `$model` is repeated for each. `$base` is the pruned model that all were trained from, and
`$dtype` the dtype that they are stored in.
"""

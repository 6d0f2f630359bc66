"""A plan of given sizes whose units are drawn at random, as a baseline."""

from collections.abc import Mapping

from transformers import PreTrainedConfig

from trl_prune.pruning.choosing.units import Ranking, choose_keep
from trl_prune.pruning.families import family_of
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep, axis_sizes


def random_keep(sizes: Mapping[str, int], config: PreTrainedConfig, seed: int) -> Keep:
    """Return a plan of these sizes whose units are drawn without looking at them.

    Args:
        sizes: how many units of each axis stay.
        config: the dense model's config.
        seed: of the draw.
    """
    family = family_of(config.model_type)
    blind = Scores(LayerScores.empty(config.num_hidden_layers), axis_sizes(config, family))
    by = Ranking(layers_by="random", width_by="random", seed=seed)
    return choose_keep(blind, sizes, config, family, by)

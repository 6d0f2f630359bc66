"""A baseline: a plan of given sizes whose units are drawn at random."""

from collections.abc import Mapping

from transformers import PreTrainedConfig

from trl_prune.checkpoints import num_blocks
from trl_prune.pruning.choosing.units import Ranking, choose_keep
from trl_prune.pruning.families import family_of
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep, axis_sizes


def random_keep(sizes: Mapping[str, int], config: PreTrainedConfig, seed: int) -> Keep:
    """Return a plan of given sizes whose units are drawn at random.

    Args:
        sizes: kept units of each axis.
        config: the dense model's config.
        seed: of the draw.
    """
    family = family_of(config.model_type)
    empty = Scores(LayerScores.empty(num_blocks(config.get_text_config())), axis_sizes(config, family))
    return choose_keep(empty, sizes, config, family, Ranking(layers_by="random", width_by="random", seed=seed))

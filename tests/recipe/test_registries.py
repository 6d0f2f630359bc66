"""The recipe repeats names and numbers of the registries, which it does not import to load fast: they are equal."""

from typing import get_args

from trl_prune.data.teacher_cache.codecs import CODECS, MAX_DRAWS, Sampled, TopK
from trl_prune.pruning.choosing.blocks import SELECTIONS
from trl_prune.pruning.choosing.effects import EFFECTS
from trl_prune.pruning.choosing.removal import REMOVAL_STRATEGIES
from trl_prune.pruning.families import AXES
from trl_prune.pruning.repairs import REPAIRS
from trl_prune.pruning.sizes.grid import MAX_DEPTH, MAX_WIDTH
from trl_prune.recipe.cache_teacher import CacheTeacherSection
from trl_prune.recipe.prune import BLOCKS_BY, MEASURED, Axis, KeepSection, PruneSection, Target
from trl_prune.recipe.search import SearchSection
from trl_prune.runs.repairs import DEFAULT_REPAIRS


def choices(section, name):
    return set(get_args(section.model_fields[name].annotation))


def default(section, name):
    return section.model_fields[name].default


def test_blocks_are_chosen_by_the_selections_and_effects():
    assert set(MEASURED) == set(EFFECTS)
    assert set(BLOCKS_BY) == {*SELECTIONS, *EFFECTS, "search"}
    assert choices(SearchSection, "layers_by") == set(SELECTIONS)
    assert choices(PruneSection, "strategy") == set(REMOVAL_STRATEGIES)


def test_axes_are_those_of_the_families():
    assert set(get_args(Axis)) == set(KeepSection.model_fields) == set(AXES)
    assert set(AXES) - {"num_hidden_layers"} < set(Target.model_fields)


def test_defaults_of_the_search_grid_are_equal():
    assert default(SearchSection, "max_width") == MAX_WIDTH
    assert default(SearchSection, "max_depth") == MAX_DEPTH


def test_tiers_and_their_defaults_are_those_of_the_codecs():
    assert choices(CacheTeacherSection, "tier") == set(CODECS)
    assert default(CacheTeacherSection, "draws") == Sampled().draws
    assert default(CacheTeacherSection, "top_k") == TopK().k
    assert max(bound.le for bound in CacheTeacherSection.model_fields["draws"].metadata if hasattr(bound, "le")) == (
        MAX_DRAWS
    )


def test_default_repairs_exist():
    assert set(DEFAULT_REPAIRS) <= set(REPAIRS)

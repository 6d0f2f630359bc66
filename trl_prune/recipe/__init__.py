"""The recipe: one YAML file, one frozen section per verb, each key documented once by the docstring under it."""

from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.evaluate import EvaluateSection
from trl_prune.recipe.loading import (
    load_recipe,
    parse_evaluate,
    parse_recipe,
    parse_rewrite,
    parse_select,
    parse_speculate,
)
from trl_prune.recipe.merge import MergeSection
from trl_prune.recipe.prune import PruneSection, Target
from trl_prune.recipe.recipe import Recipe
from trl_prune.recipe.recover import ArmSection
from trl_prune.recipe.rewrite import RewriteSection
from trl_prune.recipe.search import SearchSection
from trl_prune.recipe.select import SelectionSection, SelectSection
from trl_prune.recipe.speculate import SpeculateSection


__all__ = [
    "ArmSection",
    "DatasetSection",
    "EvaluateSection",
    "MergeSection",
    "PruneSection",
    "Recipe",
    "RewriteSection",
    "SearchSection",
    "SelectSection",
    "SelectionSection",
    "SpeculateSection",
    "Target",
    "load_recipe",
    "parse_evaluate",
    "parse_recipe",
    "parse_rewrite",
    "parse_select",
    "parse_speculate",
]

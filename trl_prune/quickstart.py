"""The quickstart: the shipped recipe in one of three sizes."""

from importlib.resources import files
from itertools import chain

from trl_prune.recipe import Recipe, load_recipe
from trl_prune.recipe.prune import BLOCKS_BY, MEASURED


# What each size changes in quickstart.yaml.
SIZES: dict[str, list[str]] = {
    "fast": [
        "output=runs/quickstart-fast",
        "dataset.rows=80",
        "score.samples=16",
        "score.batch_size=2",
        "prune.texts=2",
        "rewrite.max_new_tokens=64",
        "recover.repaired.tokens=8000",
        "recover.sft.tokens=4000",
        "recover.selfd.tokens=4000",
        "evaluate.limit=15",
        "evaluate.questions=['Why does ice float on water?']",
    ],
    "default": [],
    "full": [
        "output=runs/quickstart-full",
        "dataset.rows=null",
        "score.samples=96",
        "recover.repaired.tokens=300000",
        "recover.sft.tokens=80000",
        "recover.selfd.tokens=80000",
        "evaluate.limit=null",
    ],
}
# The shipped recipe calibrates and repairs on all shipped rows, beside `dataset.rows`; other rows serve all stages.
OWN_DATASET, OWN_ROWS = ("dataset=", "dataset.path="), "dataset.rows=250"
BY_SCORES = tuple(f"prune.by={name}" for name in BLOCKS_BY if name not in MEASURED)
# What gives way where the user overrides these keys.
REPLACED: dict[tuple[str, ...], tuple[str, ...]] = {
    OWN_DATASET: ("score.dataset=null", "recover.repaired.data=text"),
    ("score.dataset=generated",): ("score.rows_per_text=1",),
    BY_SCORES: ("prune.strategy=greedy", "prune.as_repaired=false", "prune.texts=null"),
    ("prune.by=task:",): ("prune.texts=null",),
    ("prune.target.",): ("prune.target.layers=null",),
    ("prune.keep",): ("prune.target=null", "prune.as_repaired=false"),
}


def quickstart_recipe(size: str, overrides: list[str]) -> Recipe:
    """Return the shipped recipe in a size, with the user's overrides on top.

    What the recipe says of its own rows and of its cut does not outlive other rows or another size.
    """
    replaced = [
        values for keys, values in REPLACED.items() if any(override.startswith(keys) for override in overrides)
    ]
    rows = [OWN_ROWS] * any(override.startswith(OWN_DATASET) for override in overrides)
    own = [*rows, *SIZES[size], *chain.from_iterable(replaced)]
    return load_recipe(files("trl_prune") / "quickstart.yaml", [*own, *overrides])

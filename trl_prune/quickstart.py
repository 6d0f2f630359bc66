"""The quickstart: the shipped recipe in one of three sizes."""

from importlib.resources import files

import yaml

from trl_prune.config import Recipe, load_recipe


# What each size changes in quickstart.yaml.
SIZES: dict[str, list[str]] = {
    "fast": [
        "output=runs/quickstart-fast",
        "dataset.rows=100",
        "score.samples=32",
        "rewrite.max_new_tokens=96",
        "recover.sft.tokens=6000",
        "recover.selfd.tokens=6000",
        "evaluate.items=20",
        "evaluate.questions=['Why does ice float on water?']",
    ],
    "default": [],
    "full": [
        "output=runs/quickstart-full",
        "dataset.rows=null",
        "score.samples=256",
        "recover.sft.tokens=150000",
        "recover.selfd.tokens=150000",
        "evaluate.items=null",
    ],
}


def quickstart_recipe(size: str, overrides: list[str]) -> Recipe:
    """Return the shipped recipe in a size, with the user's overrides on top."""
    return load_recipe(files("trl_prune") / "quickstart.yaml", [*SIZES[size], *overrides])


def quickstart_text() -> str:
    """Return the shipped recipe as text, for `examples` and for reading."""
    return (files("trl_prune") / "quickstart.yaml").read_text(encoding="utf-8")


def sizes_told() -> str:
    """Return in one line what the sizes are."""
    told = yaml.safe_load(quickstart_text())
    return f"default: {told['dataset']['rows']} rows, {told['recover']['sft']['tokens']:,} training tokens an arm"

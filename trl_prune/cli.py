"""The command line: `trl-prune VERB [RECIPE] [section.key=value ...]`.

Heavy imports stay behind the verbs, so that `--help` answers at once.
"""

import argparse
import errno
import logging
import os
import sys
import warnings
from pathlib import Path

from safetensors import SafetensorError

from trl_prune.errors import InputError


STAGE_VERBS = {
    "score": "score how much each decoder block matters",
    "search": "find the sizes that fit a budget and the one that recovers best",
    "prune": "cut the dense checkpoint down",
    "rewrite": "self-data distillation's data step: the dense model writes the training answers",
    "cache_teacher": "let the dense model read the training rows once, for distillation without it",
    "recover": "train the pruned model again, once for each arm (distillation: `method: kd`)",
    "evaluate": "measure the dense, pruned and recovered models with lm-eval",
    "report": "write the tables, the plots and the page",
}
EPILOG = """
Overrides are full dotted keys with YAML values: prune.target.layers=24 recover.sft.args.learning_rate=1e-4
Looking for "distill"? `recover` with `method: kd` learns from the dense model's logits, `cache-teacher` keeps them for
training without it; `rewrite` is self-data distillation's data step.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="trl-prune",
        description="Prune a dense causal LM, recover its quality, and measure what came back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    start = verbs.add_parser(
        "quickstart", help="the whole road on SmolLM2-135M, which comes from PyPI (some 10 minutes)"
    )
    size = start.add_mutually_exclusive_group()
    size.add_argument("--fast", dest="size", action="store_const", const="fast", help="some 4 minutes")
    size.add_argument("--full", dest="size", action="store_const", const="full", help="all rows and items")
    start.set_defaults(size="default")
    _shared(start, "overrides of the shipped recipe, section.key=value")
    for verb, told in {"run": "run a recipe's stages, skipping those done", **STAGE_VERBS}.items():
        _shared(verbs.add_parser(verb.replace("_", "-"), help=told), "a recipe file, then overrides section.key=value")
    verbs.add_parser("tasks", help="print the folder of the shipped tasks, for lm_eval --include_path")
    return top


def _shared(verb: argparse.ArgumentParser, told: str) -> None:
    verb.add_argument("words", nargs="*", metavar="RECIPE or key=value", help=told)
    verb.add_argument(
        "--accelerate_config",
        metavar="FILE or NAME",
        help="how several devices share the work: accelerate's config file, or one TRL ships (fsdp2, zero3, ...)",
    )
    verb.add_argument("--dry-run", action="store_true", help="print the resolved plan and do nothing")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed words; overrides may stand before and after options, which argparse alone would refuse."""
    top = parser()
    given, rest = top.parse_known_args(argv)
    options = [word for word in rest if word.startswith("-")]
    if options or (rest and not hasattr(given, "words")):
        top.error(f"unrecognized arguments: {' '.join(options or rest)}")
    if rest:
        given.words += rest
    given.verb = given.verb.replace("-", "_")  # stages and sections are Python's and YAML's names
    return given


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 for a mistake of the user's."""
    given = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("trl_prune").setLevel(logging.INFO)
    try:
        _dispatch(given)
    except InputError as error:
        print(f"trl-prune: {error}", file=sys.stderr)
        return 2
    except (OSError, SafetensorError) as error:
        # safetensors has an error of its own, which tells the system's number in words.
        if getattr(error, "errno", None) != errno.ENOSPC and f"os error {errno.ENOSPC}" not in str(error):
            raise
        print("trl-prune: the disk is full; free some, and the same command goes on from here", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trl-prune: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _dispatch(given: argparse.Namespace) -> None:
    if given.verb == "tasks":
        print(_tasks())
        return
    _calm_libraries()
    recipe = _recipe(given)
    from trl_prune.pipeline import plan, run_recipe

    if given.dry_run:
        for line in plan(recipe, given.accelerate_config):
            print(line)
        return
    stages = [given.verb] if given.verb in STAGE_VERBS else None
    run = run_recipe(recipe, stages, given.accelerate_config)
    _show(run, given.verb)


def _tasks() -> Path:
    from importlib.resources import files

    return Path(str(files("lm_eval_tasks")))


def _calm_libraries() -> None:
    # Bars of our stages say what is going on; those of every weight file and every mapped dataset hide it.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Every TRL config sets the old name of this argument itself (huggingface/trl 1.16 on transformers 5.23).
    warnings.filterwarnings("ignore", message="`.*gradient_checkpointing.*` is deprecated", category=FutureWarning)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _recipe(given: argparse.Namespace) -> object:
    words = given.words
    if given.verb == "quickstart":
        from trl_prune.quickstart import quickstart_recipe

        return quickstart_recipe(given.size, words)
    from trl_prune.recipe import load_recipe

    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise InputError(f"one recipe at a time: {', '.join(files)}")
    overrides = [word for word in words if "=" in word]
    if not files and not overrides:
        raise InputError(f"trl-prune {given.verb} wants a recipe file, or keys such as model=... output=...")
    return load_recipe(Path(files[0]) if files else None, overrides)


def _show(run: object, verb: str) -> None:
    if verb in ("quickstart", "run", "report", "evaluate"):
        from trl_prune.reporting.console import show_recovery

        show_recovery(run)
    elif verb == "search":
        from trl_prune.reporting.console import show_search

        show_search(run)
    else:
        print(run.folder.stage_dir(verb))


if __name__ == "__main__":
    sys.exit(main())

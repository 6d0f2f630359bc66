"""The command line: `trl-prune VERB [RECIPE] [section.key=value ...]`.

Heavy imports are inside the functions, so that `--help` answers at once.
"""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from trl_prune.errors import InputError, refusal


if TYPE_CHECKING:
    from trl_prune.recipe import Recipe
    from trl_prune.runs.context import Run

# What shells report of a program whose output nobody reads any more: 128 and the number of SIGPIPE.
SIGPIPE_STATUS = 141
STAGE_VERBS = {
    "synthesize": "let the dense model write training rows out of nothing, for `dataset: {synthesize: ROWS}`",
    "score": "score the importance of every block, head, neuron, channel and expert",
    "search": "find the sizes that fit a budget and the one that recovers best",
    "prune": "prune the dense checkpoint",
    "select": "choose the training rows that repair what pruning broke (PASER), with random rows beside",
    "rewrite": "self-data distillation's data step: the dense model writes the training answers",
    "cache_teacher": "let the dense model read the training rows once, for distillation without it",
    "recover": "train the pruned model, once for each arm (distillation: `method: kd`, `local_kd`)",
    "merge": "merge recovered models into one with mergekit, `merge RECIPE` or `merge slerp MODEL MODEL --output DIR`",
    "evaluate": "evaluate the dense, pruned and recovered models with lm-eval",
    "speculate": "measure the pruned and recovered models as drafts for speculative decoding of the dense one",
    "report": "write the tables, the figures and the page; of several run folders one page about all",
}
EPILOG = """
A stage's verb first runs the stages it needs, unless they are done; `--only` runs the stage alone.
Overrides are full dotted keys with YAML values: prune.target.layers=24 recover.sft.args.learning_rate=1e-4
Looking for "distill"? `recover` with `method: kd` learns from the dense model's logits, `cache-teacher` keeps them for
training without it; with `method: local_kd` the blocks next to a cut learn its states; `rewrite` is self-data
distillation's data step.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="trl-prune",
        description="Prune a dense causal LM, recover its quality, and measure the recovered quality.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    start = verbs.add_parser("quickstart", help="all stages on SmolLM2-135M, which comes from PyPI (5 to 12 minutes)")
    size = start.add_mutually_exclusive_group()
    size.add_argument("--fast", dest="size", action="store_const", const="fast", help="a tenth of everything")
    size.add_argument("--full", dest="size", action="store_const", const="full", help="all rows and items")
    start.set_defaults(size="default")
    _add_arguments(start, "overrides of the shipped recipe, section.key=value")
    recipe_help = "a recipe file, then overrides section.key=value"
    _add_arguments(verbs.add_parser("run", help="run a recipe's stages, skipping those done"), recipe_help)
    for stage, summary in STAGE_VERBS.items():
        verb = verbs.add_parser(stage.replace("_", "-"), help=summary)
        _add_arguments(verb, recipe_help)
        verb.add_argument(
            "--only", action="store_true", help="run this stage alone, on the results that earlier ones left"
        )
        if stage == "report":
            verb.add_argument("--output", metavar="FOLDER", help="where a report on run folders is written")
        if stage == "merge":
            verb.add_argument("--output", metavar="FOLDER", help="where a merge of folders or --print's files go")
            verb.add_argument(
                "--print",
                action="store_true",
                help="print mergekit's YAML and merge nothing; several merges of a recipe become files in --output",
            )
    _add_compare(verbs.add_parser("compare", help="compare models' lm-eval results item by item, with a verdict"))
    verbs.add_parser("tasks", help="print the folder of the shipped tasks, for lm_eval --include_path")
    verbs.add_parser("models", help="list the model types, and the axes along which each can be cut")
    return top


def _add_arguments(verb: argparse.ArgumentParser, words_help: str) -> None:
    verb.add_argument("words", nargs="*", metavar="RECIPE or key=value", help=words_help)
    verb.add_argument(
        "--accelerate_config",
        metavar="FILE or NAME",
        help="how several devices share the work: accelerate's config file, or one TRL ships (fsdp2, zero3, ...)",
    )
    verb.add_argument("--dry-run", action="store_true", help="print the resolved plan and do nothing")


def _add_compare(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="results files of lm_eval --log_samples or folders of them, NAME=FILE to name a model; or a run folder "
        "or recipe, whose models are all compared; the first is the dense one",
    )
    verb.add_argument("--dense", metavar="RESULTS or NAME", help="the dense model, if it is not the first")
    verb.add_argument("--pruned", metavar="RESULTS or NAME", help="the unrecovered model, for the gap that is closed")
    verb.add_argument("--output", metavar="FOLDER", help="where comparison.json, .md and .html are written")
    verb.add_argument(
        "--metric", action="append", default=[], metavar="TASK=METRIC", help="the metric that counts for a task"
    )
    verb.add_argument(
        "--allow_differences", action="store_true", help="warn of other shots, versions or prompts, do not refuse them"
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed arguments; overrides may come before and after options, which argparse alone would refuse."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    options = [word for word in rest if word.startswith("-")]
    if options or (rest and not hasattr(arguments, "words")):
        top.error(f"unrecognized arguments: {' '.join(options or rest)}")
    if rest:
        arguments.words += rest
    arguments.verb = arguments.verb.replace("-", "_")  # as stages and sections are named
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 for a mistake in the user's input."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("trl_prune").setLevel(logging.INFO)
    try:
        _dispatch(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"trl-prune: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the exit would still write
        return SIGPIPE_STATUS
    except (OSError, SafetensorError) as error:
        refused = refusal(error)
        if refused is None:
            raise
        print(f"trl-prune: {refused}; the same command resumes", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trl-prune: stopped; the same command resumes", file=sys.stderr)
        return 130
    return 0


def _dispatch(arguments: argparse.Namespace) -> None:
    if arguments.verb in WITHOUT_RECIPE:
        WITHOUT_RECIPE[arguments.verb](arguments)
        return
    _silence_libraries()
    applies, do = OTHER_FORMS.get(arguments.verb, (bool, None))
    if do is not None and applies(arguments):
        do(arguments)
        return
    if getattr(arguments, "output", None):
        raise InputError("--output is for folders; what a recipe makes goes into the recipe's own `output`")
    recipe = _recipe(arguments)
    from trl_prune.pipeline import plan, run_recipe

    stages, only = ([arguments.verb], arguments.only) if arguments.verb in STAGE_VERBS else (None, False)
    if arguments.dry_run:
        for line in plan(recipe, stages, arguments.accelerate_config, only):
            print(line)
    else:
        _show(run_recipe(recipe, stages, arguments.accelerate_config, only), arguments.verb)


def _compare(arguments: argparse.Namespace) -> None:
    wrong = [pair for pair in arguments.metric if "=" not in pair]
    if wrong:
        raise InputError(f"--metric is {wrong[0]!r}; wanted: TASK=METRIC, as in ifeval=prompt_level_strict_acc")
    from trl_prune.reporting.comparison_page import write_comparison
    from trl_prune.reporting.console import show_comparison
    from trl_prune.runs.compared_results import compared_results

    metrics = dict(pair.split("=", 1) for pair in arguments.metric)
    compared = compared_results(
        arguments.results, arguments.dense, arguments.pruned, metrics, arguments.allow_differences
    )
    show_comparison(compared)
    if arguments.output:
        print(f"comparison: {write_comparison(compared, Path(arguments.output).expanduser())}")


def _names_runs(arguments: argparse.Namespace) -> bool:
    """Return whether words name run folders rather than one recipe."""
    files = [word for word in arguments.words if not _is_override(word)]
    return len(files) > 1 or any(Path(word).expanduser().is_dir() for word in files)


def _is_override(word: str) -> bool:
    """Return whether a word is `key=value` rather than a path, in which there may be an `=`, too."""
    return "=" in word and not Path(word).expanduser().exists()


def _report_runs(arguments: argparse.Namespace) -> None:
    overrides = any(_is_override(word) for word in arguments.words)
    options = {"--only": arguments.only, "--dry-run": arguments.dry_run, "overrides": overrides}
    given = [option for option, value in options.items() if value]
    if given:
        raise InputError(f"{given[0]} is for a recipe's report; a report on run folders reads what they hold")
    from trl_prune.reporting.across_runs import report_runs

    report = report_runs(arguments.words, arguments.output)
    for name, sentence in report.verdicts.items():
        print(f"{name}: {sentence}")
    print(f"report: {report.page}")


def _print_tasks_dir(arguments: argparse.Namespace) -> None:  # noqa: ARG001
    from importlib.resources import files

    print(Path(str(files("lm_eval_tasks"))))


def _names_models(arguments: argparse.Namespace) -> bool:
    """Return whether words name a merge recipe and models rather than the recipe of a run."""
    files = [word for word in arguments.words if "=" not in word]
    return len(files) > 1 or bool(files and Path(files[0]).suffix not in (".yaml", ".yml"))


def _merge(arguments: argparse.Namespace) -> None:
    """Merge the models that words name, or print the merges of words or of a recipe as YAML for mergekit."""
    from trl_prune.runs.merging import MergeCall, printed_merges

    if not _names_models(arguments):
        print(printed_merges(_recipe(arguments), arguments.output), end="")
        return
    from trl_prune.recipe.loading import parse_words

    (recipe, *models), values = parse_words(arguments.words)
    call = MergeCall.of(recipe, models, **values)
    if arguments.print:
        print(call.to_yaml(), end="")
        return
    if arguments.dry_run:
        call.check(Path(arguments.output) if arguments.output else None)
        print(call.describe())
        return
    if not arguments.output:
        raise InputError(f"trl-prune merge {recipe} requires --output FOLDER, where the merged model is written")
    from trl_prune.reporting.merging import merge_sentences

    for sentence in merge_sentences(recipe, call.run(Path(arguments.output))):
        print(sentence)
    print(arguments.output)


def _print_models(arguments: argparse.Namespace) -> None:  # noqa: ARG001
    from trl_prune.pruning.supported import as_lines, supported_types

    print("\n".join(as_lines(supported_types())))


# Verbs that read no recipe.
WITHOUT_RECIPE = {"tasks": _print_tasks_dir, "models": _print_models, "compare": _compare}
# Verbs that do without a recipe, or without its stages, if their words or options say so.
OTHER_FORMS = {
    "report": (_names_runs, _report_runs),
    "merge": (lambda arguments: arguments.print or _names_models(arguments), _merge),
}


def _silence_libraries() -> None:
    # The stages show progress bars; bars for every weight file and every mapped dataset would hide them.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Every TRL config sets the old name of this argument itself (huggingface/trl 1.16 on transformers 5.23).
    warnings.filterwarnings("ignore", message="`.*gradient_checkpointing.*` is deprecated", category=FutureWarning)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _recipe(arguments: argparse.Namespace) -> "Recipe":
    words = arguments.words
    if arguments.verb == "quickstart":
        from trl_prune.quickstart import quickstart_recipe

        return quickstart_recipe(arguments.size, words)
    from trl_prune.recipe import load_recipe

    files = [word for word in words if not _is_override(word)]
    if len(files) > 1:
        raise InputError(f"one recipe at a time: {', '.join(files)}")
    overrides = [word for word in words if _is_override(word)]
    if not files and not overrides:
        raise InputError(f"trl-prune {arguments.verb} requires a recipe file, or keys such as model=... output=...")
    return load_recipe(Path(files[0]) if files else None, overrides)


def _show(run: "Run", verb: str) -> None:
    from trl_prune.pipeline import STAGES

    stage = STAGES.get(verb, STAGES["report"])  # `run` and `quickstart` end with the report
    if stage.show is None:
        print(run.folder.stage_dir(stage.name))
    else:
        stage.show(run)


if __name__ == "__main__":
    sys.exit(main())

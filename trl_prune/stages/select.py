"""select: the rows that repair what pruning broke (PASER, 2502.12594), and the selections to compare them with."""

import sys
import time
from pathlib import Path

from datasets import Dataset

from trl_prune.checkpoints import atomic_file, load_tokenizer, write_json
from trl_prune.data.formats import check_has_template
from trl_prune.data.selection.selection_run import SelectionModels, SelectionRun, SelectionSettings
from trl_prune.data.selection.summary import pool_table, selection_summary
from trl_prune.data.selection.texts import check_instruction_column
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher, context_length
from trl_prune.errors import InputError
from trl_prune.recipe import Recipe
from trl_prune.reporting.console import show_selection
from trl_prune.reporting.plots.selection import BUDGET_BY_DEGRADATION, CLUSTER_MAP
from trl_prune.reporting.tables import SELECTION_TABLE
from trl_prune.runs import selection
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.selected_rows import SELECTIONS, planned_count
from trl_prune.runs.sharing import share_main, single_process_share, write_in_processes
from trl_prune.runs.stage import Stage


# A folder with one parquet file is a dataset to `datasets.load_dataset`.
DATASET, POOL = "dataset/train.parquet", "pool.parquet"
ROWS, SUMMARY, MEASURED = "selections.json", "selection.json", "measured"
# Keys of the section that change what the computation costs, not its result; `selections` are taken from the recipe.
NOT_HASHED = ("batch_tokens", "selections")


def selection_models(run: Run) -> SelectionModels:
    """Return the dense and the pruned model and the embedder, none of them loaded yet."""
    dense, pruned = _model(run, "dense"), _model(run, "pruned")
    return SelectionModels(dense, pruned, selection.build_embedder(run.recipe.select, dense))


def _model(run: Run, name: str) -> LazyTeacher:
    folder, fingerprint = run.model_dir(name), f"{run.model_hash(name)} {run.dtype}"
    # A tokenizer of its own: preparing rows may change the special tokens of the run's.
    tokenizer, length = load_tokenizer(folder), context_length(run.config)
    return LazyTeacher(lambda: run.load(name), tokenizer, fingerprint, length, folder)


def selection_settings(run: Run) -> SelectionSettings:
    """Return the recipe's settings of the selection."""
    return selection.selection_settings(run.recipe.select, run.recipe.selections, run.recipe.seed)


def selection_run(run: Run, folder: Path) -> SelectionRun:
    """Return what selects the recipe's rows."""
    section, variables, models = run.recipe.select, run.recipe.chat_template_kwargs, selection_models(run)
    target = None if section.target is None else run.rows(section.target)
    rows = selection.selection_rows(run.dataset, section, [models.dense, models.pruned], variables, target)
    return SelectionRun(rows, models, selection_settings(run), folder / MEASURED)


def write_share(run: Run, folder: Path, share: ProcessShare) -> None:
    """Compute one process's share of the embeddings and scores."""
    selection_run(run, folder).write_share(share)


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Select the rows, reusing every embedding and score that an earlier or interrupted attempt stored."""
    start = time.perf_counter()
    write_in_processes(run, __name__, folder)
    job = selection_run(run, folder)
    selected = job.run(single_process_share("select", "part"))
    write_json(folder / ROWS, {name: one.rows.tolist() for name, one in selected.selections.items()})
    _write_table(run.dataset.select(selected.own.rows.tolist()), folder / DATASET)
    _write_table(pool_table(selected), folder / POOL)
    figures = selection_summary(selected, job.rows, job.settings)
    write_json(folder / SUMMARY, figures)
    outputs = {SELECTIONS: ROWS, "dataset": DATASET, "pool": POOL, "summary": SUMMARY}
    timing = {"seconds": time.perf_counter() - start, "parts": selected.seconds}
    return StageOutput(outputs, figures["pool"] | {"selections": figures["selections"]}, timing)


def _write_table(rows: Dataset, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as part:
        rows.to_parquet(part)


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of both models and of the rows."""
    hashes = {"dense": run.dense_fingerprint, "pruned": run.model_hash("pruned"), "dataset": run.dataset_fingerprint}
    target = run.recipe.select.target
    return hashes if target is None else hashes | {"target": run.fingerprint(target)}


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the selections."""
    section = run.recipe.select.model_dump(mode="json")
    values = {name: value for name, value in section.items() if name not in NOT_HASHED}
    selections = {name: one.model_dump(mode="json") for name, one in run.recipe.selections.items()}
    values = {"select": values, "selections": selections, "seed": run.recipe.seed, "dtype": run.dtype}
    return values | run.recipe.template_settings


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return how many rows each selection has."""
    counts = [f"{planned_count(run, name):,} by {name}" for name in run.recipe.selections]
    return f"of {len(run.dataset):,} rows {', '.join(counts)}"


def is_configured(recipe: Recipe) -> bool:
    """Return whether the recipe has a `select` section."""
    return recipe.select is not None


def parts(recipe: Recipe) -> list[str]:
    """Return the one part, if the recipe has a `select` section."""
    return [""] * is_configured(recipe)


def needs(recipe: Recipe) -> list[str]:  # noqa: ARG001
    """Return the stage that makes the pruned model."""
    return ["prune"]


def check(run: Run) -> None:
    """Check the rows, the budgets and the embedder, before anything is read by a model."""
    section = run.recipe.select
    if section is None:
        raise InputError("the recipe has no `select` section")
    check_instruction_column(run.dataset, section.instruction, f"dataset {run.recipe.dataset.path!r}")
    check_has_template(run.dataset, run.tokenizer, f"dataset {run.recipe.dataset.path!r}")
    if section.target is not None:
        run.rows(section.target)  # which says what is wrong with it
    _check_budgets(run)
    if selection_settings(run).needs_embeddings and not _is_done(run):
        selection.check_embedder(section)


def _check_budgets(run: Run) -> None:
    for name in run.recipe.selections:
        try:
            planned_count(run, name)
        except InputError as error:
            raise InputError(f"select.{error}, in dataset {run.recipe.dataset.path!r}") from error


def _is_done(run: Run) -> bool:
    """Return whether the rows are selected, so that a machine that trains on them needs no embedder."""
    if run.folder.result("select") is None or run.folder.result("prune") is None:
        return False
    return run.folder.is_done("select", "", inputs(run, ""), settings(run, ""))


STAGE = Stage(
    "select",
    inputs,
    settings,
    execute,
    describe,
    parts,
    needs,
    is_configured,
    check,
    keeps=(MEASURED,),
    panels=(BUDGET_BY_DEGRADATION, CLUSTER_MAP, SELECTION_TABLE),
    show=show_selection,
)

if __name__ == "__main__":
    sys.exit(share_main("select", write_share))

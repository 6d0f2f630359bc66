"""The rows that an arm trains on: one source as it is or a part of it, or a mix of sources as tokens."""

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from trl_prune.checkpoints import load_tokenizer
from trl_prune.data.batches import num_texts, rows_in_one_text
from trl_prune.data.formats import (
    CAPABILITY,
    FORMATS,
    Row,
    answer_index,
    check_has_template,
    format_of,
    template_variables,
)
from trl_prune.data.generation.prompts import prompt_ids
from trl_prune.data.mixing import MixSource, draw_mix
from trl_prune.data.reading import read_dataset
from trl_prune.data.rendering import row_conversation
from trl_prune.errors import InputError
from trl_prune.recipe import ArmSection, DatasetSection
from trl_prune.recipe.recover import SourceSection
from trl_prune.runs.artifacts import config_hash
from trl_prune.runs.context import QUICKSTART, Run, dataset_fingerprint
from trl_prune.runs.selected_rows import (
    planned_count,
    positions_in_rewritten,
    selected_rows,
    selection_name,
    uses_selection,
)
from trl_prune.trainers.preparation import longest_prompt, prepare_source, with_chat_template_kwargs


@dataclass(frozen=True)
class TrainingRows:
    """What an arm trains on.

    Attributes:
        rows: in one of TRL's formats; those of a mix as `input_ids` and `labels`.
        count: the number of rows.
        sources: of a mix, each source's label, rows and tokens as they are trained on, after truncation.
        capabilities: the values of the rows' column `capability`, sorted; None where no row has one.
    """

    rows: Dataset
    count: int
    sources: list[dict] | None = None
    capabilities: list[str] | None = None


def training_rows(run: Run, arm: ArmSection, args: dict) -> TrainingRows:
    """Return the rows that an arm trains on.

    Args:
        run: the run, whose rows are rewritten if the arm uses them.
        arm: one of the recipe's arms.
        args: the arguments of its training config (`runs.arms.training_args`).

    Raises:
        InputError: there are fewer rows than the arm asks for. `check_rows` has found that before, unless duplicates
            and rows without an answer, which the selection `full` leaves out, make the difference.
    """
    template_kwargs = run.recipe.chat_template_kwargs
    pools = [with_chat_template_kwargs(source_rows(run, arm, source), template_kwargs) for source in arm.sources]
    if not arm.is_mix and arm.rows is None:
        return TrainingRows(pools[0], len(pools[0]), capabilities=_capabilities(pools))
    name = next(name for name, other in run.recipe.recover.items() if other is arm)
    drawn = _draw(run, name, arm, list(map(len, pools)))
    # In the dataset's order, as where all rows are trained on; the trainer shuffles.
    parts = [pool.select(sorted(indices)) for pool, indices in zip(pools, drawn, strict=True)]
    if not arm.is_mix:
        return TrainingRows(parts[0], len(parts[0]), capabilities=_capabilities(parts))
    return _mixed(run, arm, args, parts)


def _mixed(run: Run, arm: ArmSection, args: dict, parts: list[Dataset]) -> TrainingRows:
    tokenizer = load_tokenizer(run.dense_dir)  # not the run's own: preparing rows may change its special tokens
    texts = [rows_in_one_text(rows, source.rows_per_text) for source, rows in zip(arm.sources, parts, strict=True)]
    prepared = [
        prepare_source(rows, args, tokenizer, every_token=source.source == "text")
        for source, rows in zip(arm.sources, texts, strict=True)
    ]
    sources = [
        {"source": source.label, "share": source.share, "rows": len(rows), "tokens": sum(map(len, rows["input_ids"]))}
        for source, rows in zip(arm.sources, prepared, strict=True)
    ]
    # Neighbours are packed together, so the sources are interleaved.
    rows = concatenate_datasets(prepared).shuffle(seed=run.recipe.seed)
    return TrainingRows(rows, len(rows), sources, _capabilities(parts))


def _capabilities(pools: list[Dataset]) -> list[str] | None:
    """Return what rows say that they train."""
    named = [pool for pool in pools if CAPABILITY in pool.column_names]
    values = {str(value) for pool in named for value in pool[CAPABILITY] if value is not None}
    return sorted(values) or None


def source_rows(run: Run, arm: ArmSection, source: SourceSection) -> Dataset:
    """Return all rows of a source of an arm, or those of the arm's selection."""
    is_rewritten = source.source == "rewritten"
    rows = read_dataset(str(run.folder.output("rewrite", "rows"))) if is_rewritten else planned_rows(run, source)
    if not uses_selection(run, source):
        return rows
    indices = selected_rows(run, selection_name(run, arm))
    if not is_rewritten:
        return rows.select(indices)
    return rows.select(positions_in_rewritten(run, indices))


def planned_rows(run: Run, source: SourceSection) -> Dataset:
    """Return the rows that a source has, or that its rows are selected or rewritten from."""
    return run.dataset if source.dataset is None else run.rows(source.dataset)


def _draw(run: Run, name: str, arm: ArmSection, sizes: list[int]) -> list[list[int]]:
    """Return which rows of each source an arm trains on; `rewritten` rows have the indices of the dataset's."""
    sources = [
        MixSource(_label(run, arm, source), source.share, dataset_origin(source.dataset or run.recipe.dataset), size)
        for source, size in zip(arm.sources, sizes, strict=True)
    ]
    try:
        return draw_mix(sources, arm.rows, run.recipe.seed)
    except InputError as error:
        raise InputError(f"recover.{name}.{error}") from error


def _label(run: Run, arm: ArmSection, source: SourceSection) -> str:
    selected = f" of the selection {selection_name(run, arm)!r}" if uses_selection(run, source) else ""
    return source.label + selected


def dataset_origin(section: DatasetSection) -> tuple[str | None, ...]:
    """Return what a section's rows are drawn from, equal for all spellings of a file's path.

    The seed draws the rows of a section, so sections with one origin and as many rows have the same rows.
    """
    local = Path(section.path).expanduser()
    if section.path == QUICKSTART or section.is_synthesized:
        return (section.path,)
    if local.is_file():
        return (str(local.resolve()),)
    path = str(local.resolve()) if local.exists() else section.path
    return path, section.name, section.split, section.revision


def rows_hash(run: Run, arm: ArmSection) -> str:
    """Return the hash of the rows that an arm draws from."""
    hashes = [_source_hash(run, arm, source) for source in arm.sources]
    selections = [_selection_hash(run, arm)] if any(uses_selection(run, source) for source in arm.sources) else []
    return config_hash(hashes + selections) if arm.is_mix or selections else hashes[0]


def _selection_hash(run: Run, arm: ArmSection) -> str:
    """Return a hash of the rows of an arm's selection, which another selection's change leaves as it is."""
    return config_hash(selected_rows(run, selection_name(run, arm)))


def _source_hash(run: Run, arm: ArmSection, source: SourceSection) -> str:
    if source.source != "rewritten":
        return run.fingerprint(source.dataset or run.recipe.dataset)
    if uses_selection(run, source):  # the stage's result covers the rows of all selections
        return dataset_fingerprint(source_rows(run, arm, source))
    return run.folder.result_hash("rewrite")


def check_rows(run: Run, name: str, arm: ArmSection) -> None:
    """Check that an arm has enough rows, in formats that it can train on.

    Selected rows are counted as `planned_count` does, at most.

    Raises:
        InputError: it has not.
    """
    for source in arm.sources:
        _check_format(run, f"recover.{name}", arm, source)
    _check_selected(run, f"recover.{name}", arm)
    counts = [_planned_count(run, arm, source) for source in arm.sources]
    if arm.is_mix or arm.rows is not None:
        drawn = zip(arm.sources, _draw(run, name, arm, counts), strict=True)
        counts = [num_texts(len(indices), source.rows_per_text) for source, indices in drawn]
    if arm.validation is not None and arm.validation >= sum(counts):
        raise InputError(
            f"recover.{name}.validation is {arm.validation}, and the arm has {sum(counts)} rows; keep some to train on"
        )


def check_prompts(run: Run, key: str, arm: ArmSection, args: dict) -> None:
    """Check that a prompt of each source leaves room for its answer.

    Args:
        run: the run.
        key: the arm's key in the recipe, for the error.
        arm: the arm.
        args: the arguments of its training config.

    Raises:
        InputError: the prompts of all rows fill `max_length`.
    """
    longest = longest_prompt(args)
    if longest is None:
        return
    for source in arm.sources:
        rows = planned_rows(run, source)
        if source.source != "text" and not any(_prompt_tokens(run, row) <= longest for row in rows):
            raise InputError(
                f"{key}.args.max_length is {longest + 1}, and the prompts of all {len(rows):,} rows of "
                f"{(source.dataset or run.recipe.dataset).path!r} fill it, so that no token of an answer is left to "
                "learn; raise it"
            )


def _prompt_tokens(run: Run, row: Row) -> int:
    messages = row_conversation(row)
    if messages is None:
        return len(run.tokenizer(row["prompt"])["input_ids"]) if row.get("prompt") is not None else 0
    prompt = messages[: answer_index(messages)] if row.get("messages") is not None else row["prompt"]
    variables = template_variables(row, run.recipe.chat_template_kwargs)
    return len(prompt_ids(run.tokenizer, prompt, chat_template_kwargs=variables)) if prompt else 0


def _check_selected(run: Run, key: str, arm: ArmSection) -> None:
    """Check that the dataset and its selected rows are not both drawn from: positions in them are different rows."""
    if not any(uses_selection(run, source) for source in arm.sources):
        return
    origin = dataset_origin(run.recipe.dataset)
    for source in arm.sources:
        if source.dataset is not None and dataset_origin(source.dataset) == origin:
            raise InputError(
                f"{key}.data has {source.label} beside selected rows of the same dataset, so that a row could be "
                "drawn twice; leave out that source's `dataset`, and it has the selected rows"
            )


def _planned_count(run: Run, arm: ArmSection, source: SourceSection) -> int:
    if uses_selection(run, source):
        return planned_count(run, selection_name(run, arm))
    return len(planned_rows(run, source))


def _check_format(run: Run, key: str, arm: ArmSection, source: SourceSection) -> None:
    with_chat_template_kwargs(planned_rows(run, source), {})  # refuses a column that is no object
    rows, path = planned_rows(run, source), (source.dataset or run.recipe.dataset).path
    check_has_template(rows, run.tokenizer, f"dataset {path!r}")
    is_text = format_of(rows.column_names, f"dataset {path!r}") == FORMATS[2]
    if arm.is_mix and is_text and source.source != "text":
        raise InputError(
            f"{key}.data has the source {source.source!r} of dataset {path!r}, which is plain text without answers; "
            "write `source: text`"
        )

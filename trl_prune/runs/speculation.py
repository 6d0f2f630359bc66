"""The `speculate` section as plain arguments: drafts, prompts and settings."""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import fingerprint, load_config, load_model, load_tokenizer, locate
from trl_prune.data.formats import CAPABILITY, Row, prompt_and_answer, template_variables
from trl_prune.data.generation.decoding import end_ids
from trl_prune.data.generation.prompts import prompt_ids
from trl_prune.data.teacher import context_length
from trl_prune.errors import InputError
from trl_prune.evaluation.speculative.measurement import SpeculativeSettings
from trl_prune.evaluation.speculative.texts import SpeculativePrompt
from trl_prune.recipe import DatasetSection, Recipe, SpeculateSection
from trl_prune.recipe.speculate import draft_names, is_model_name
from trl_prune.runs.context import Run
from trl_prune.trainers.teachers.tokenizer_check import check_encodings


# Tokens of a plain text that are read; its first half is the prompt, the second the given answer.
TEXT_TOKENS = 256


def section_of(recipe: Recipe) -> SpeculateSection:
    """Return the recipe's `speculate` section, or its defaults."""
    return recipe.speculate or SpeculateSection()


def drafts_of(recipe: Recipe) -> dict[str, str]:
    """Return the drafts as the recipe names them, by what results call them."""
    drafts = section_of(recipe).drafts or [name for name in recipe.models if name != "dense"]
    return dict(zip(draft_names(drafts), drafts, strict=True))


def draft_dir(run: Run, name: str) -> Path:
    """Return the checkpoint folder of a draft."""
    draft = drafts_of(run.recipe)[name]
    return run.model_dir(draft) if is_model_name(draft) else locate(draft)


def draft_hash(run: Run, name: str) -> str:
    """Return the hash by which a stage names a draft as its input."""
    draft = drafts_of(run.recipe)[name]
    return run.model_hash(draft) if is_model_name(draft) else fingerprint(draft_dir(run, name))


def load_draft(run: Run, name: str) -> PreTrainedModel:
    """Return a draft, in eval mode and the run's dtype."""
    return load_model(draft_dir(run, name), run.dtype, run.device)


def prompts_section(recipe: Recipe) -> DatasetSection:
    """Return the dataset of the prompts."""
    return section_of(recipe).dataset or recipe.evaluate.held_out or recipe.dataset


def speculative_settings(section: SpeculateSection, seed: int, ends: set[int]) -> SpeculativeSettings:
    """Return how drafts are judged.

    Args:
        section: the section.
        seed: the recipe's seed.
        ends: the ids that end an answer.
    """
    return SpeculativeSettings(
        draft_lengths=tuple(sorted(section.draft_lengths)),
        batch_sizes=tuple(section.batch_sizes),
        max_new_tokens=section.max_new_tokens,
        sampled=section.sampled,
        temperature=section.temperature,
        timed_prompts=min(section.timed_prompts, section.prompts),
        end_ids=tuple(sorted(ends)),
        seed=seed,
    )


def run_settings(run: Run, target: PreTrainedModel) -> SpeculativeSettings:
    """Return how the drafts of a run are judged; the dense model's generation config says what ends an answer."""
    ends = end_ids(target.generation_config, run.tokenizer)
    return speculative_settings(section_of(run.recipe), run.recipe.seed, ends)


def run_prompts(run: Run) -> list[SpeculativePrompt]:
    """Return the prompts of a run.

    Raises:
        InputError: there is none.
    """
    section, dataset = section_of(run.recipe), prompts_section(run.recipe)
    variables, rows = run.recipe.chat_template_kwargs, run.rows(dataset)
    longest = longest_prompt([run.config], section)
    found = draw_prompts(rows, run.tokenizer, section.prompts, run.recipe.seed, longest, variables)
    if not found:
        raise InputError(no_prompts(f"dataset {dataset.path!r}", longest))
    return found


def no_prompts(source: str, longest: int | None) -> str:
    """Return the sentence for rows without a prompt."""
    limit = "" if longest is None else f" of at most {longest:,} tokens, which leaves room for the answer"
    return f"{source} has no row with a prompt{limit}"


def longest_prompt(configs: Sequence[PreTrainedConfig], section: SpeculateSection) -> int | None:
    """Return the most tokens of a prompt for which models have room, with its answer; None for no limit."""
    lengths = [length for config in configs if (length := context_length(config)) is not None]
    return min(lengths) - section.max_new_tokens - max(section.draft_lengths) if lengths else None


def draw_prompts(  # noqa: PLR0913
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    seed: int,
    longest: int | None,
    variables: Mapping[str, object],
) -> list[SpeculativePrompt]:
    """Return prompts of rows drawn at random, leaving out rows without one and those that are too long.

    Args:
        rows: rows in one of TRL's formats; of a plain text the first half is the prompt.
        tokenizer: the target's tokenizer.
        count: the number of prompts; fewer if there are no more.
        seed: seed of the draw.
        longest: the most tokens of a prompt; None for no limit.
        variables: variables of the chat template.
    """
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    found = []
    for prompt in _prompts((rows[index] for index in order), tokenizer, variables):
        if longest is None or len(prompt.ids) <= longest:
            found.append(prompt)
        if len(found) == count:
            break
    return found


def _prompts(
    rows: Iterator[Row], tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, object]
) -> Iterator[SpeculativePrompt]:
    for row in rows:
        capability = row.get(CAPABILITY)
        split = prompt_and_answer(row)
        if split is not None:
            messages, answer = split
            ids = prompt_ids(tokenizer, messages, chat_template_kwargs=template_variables(row, variables))
            reference = tokenizer(answer, add_special_tokens=False)["input_ids"]
        else:
            text = tokenizer(str(row.get("text") or ""), truncation=True, max_length=TEXT_TOKENS)["input_ids"]
            ids, reference = text[: len(text) // 2], text[len(text) // 2 :]
        if ids:
            yield SpeculativePrompt(ids, reference or None, None if capability is None else str(capability))


def check_draft(name: str, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a checkpoint can be a draft: a decoder whose ids mean what the target's mean.

    Args:
        name: what the draft is called.
        folder: its checkpoint.
        tokenizer: the target's tokenizer.

    Raises:
        InputError: it cannot.
    """
    if load_config(folder).is_encoder_decoder:
        raise InputError(f"draft {name!r} is an encoder-decoder model; wanted: a decoder, as the target is")
    check_vocabulary(name, tokenizer, load_tokenizer(folder))


def check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, draft_tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a draft has the target's tokens with the same ids; padding of the embedding does not matter.

    Raises:
        InputError: it has not.
    """
    vocabulary, draft_vocabulary = tokenizer.get_vocab(), draft_tokenizer.get_vocab()
    ids = sorted({**vocabulary, **draft_vocabulary}.items(), key=lambda item: item[1])
    token = next((token for token, _ in ids if vocabulary.get(token) != draft_vocabulary.get(token)), None)
    if token is not None:
        known = [found.get(token, "none") for found in (vocabulary, draft_vocabulary)]
        raise InputError(
            f"draft {name!r} has another vocabulary ({len(draft_vocabulary):,} tokens, the target "
            f"{len(vocabulary):,}): the id of {token!r} is {known[0]} to the target and {known[1]} to the draft; "
            "speculative decoding compares ids, so both must be the same"
        )
    check_encodings({"target": tokenizer, f"draft {name!r}": draft_tokenizer})

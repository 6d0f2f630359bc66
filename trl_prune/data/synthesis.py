"""Training rows out of nothing: an instruction-tuned model writes users' turns, and then its own answers to them.

Given only what its chat template puts before a user's first words, such a model goes on with what its own training
data had there (Magpie, 2406.08464). So whoever has a checkpoint and no data has rows that cover what it can do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.prompts import Prompt, prompt_ids
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.rendering import rendered
from trl_prune.data.rewriting.text_faults import text_fault
from trl_prune.data.rewriting.thoughts import answer_after_thoughts, thought_opened_by
from trl_prune.data.selection.duplicates import equal_texts
from trl_prune.errors import InputError


# Stands for a user's words in a rendered template.
PLACEHOLDER = "PLACEHOLDER"
# Users' turns drawn at most for each row: of a model that goes on repeating itself there is no end.
DRAWS_PER_ROW = 4
DUPLICATE = "duplicate"


@dataclass(frozen=True)
class SynthesisSettings:
    """How rows are written.

    Attributes:
        prompts: how users' turns are sampled; the temperature is above 0.
        answers: how they are answered.
        chat_template_kwargs: variables of the chat template.
    """

    prompts: Sampling = field(default_factory=lambda: Sampling(temperature=1.0))
    answers: Sampling = field(default_factory=Sampling)
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class SynthesizedRows:
    """Rows that a model wrote.

    Attributes:
        rows: each with a conversational prompt and completion.
        drawn: the number of users' turns that were drawn for them.
        rejected: the numbers of those that became no row, by `prompt: FAULT` or `answer: FAULT`, with the faults of
            `text_faults` and `duplicate`.
    """

    rows: list[dict]
    drawn: int
    rejected: dict[str, int]


def user_prefix(tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, object]) -> list[int]:
    """Return the token ids that a chat template puts before a user's first words.

    Raises:
        InputError: there is no chat template, or it has none.
    """
    before, _ = _around_user(tokenizer, chat_template_kwargs)
    ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError("the tokenizer's chat template has nothing before a user's words for a model to go on from")
    return ids


def check_user_end(
    tokenizer: PreTrainedTokenizerBase, end_ids: set[int], chat_template_kwargs: Mapping[str, object]
) -> None:
    """Check that a user's turn ends with a token that ends generation.

    Args:
        tokenizer: the model's tokenizer.
        end_ids: the ids that end its answers.
        chat_template_kwargs: variables of the chat template.

    Raises:
        InputError: it does not, so that a model would write the answer into the user's turn.
    """
    _, after = _around_user(tokenizer, chat_template_kwargs)
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]
    if not ids or ids[0] not in end_ids:
        shown = repr(tokenizer.decode(ids[:1])) if ids else "nothing"
        raise InputError(
            f"the tokenizer's chat template ends a user's turn with {shown}; to write users' turns, a model must end "
            f"them as it ends its answers, with one of {', '.join(tokenizer.convert_ids_to_tokens(sorted(end_ids)))}"
        )


def _around_user(tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, object]) -> tuple[str, str]:
    if tokenizer.chat_template is None:
        raise InputError("the tokenizer has no chat template, by which an instruction-tuned model writes users' turns")
    _, text = rendered(tokenizer, [{"role": "user", "content": PLACEHOLDER}], None, chat_template_kwargs)
    before, _, after = text.partition(PLACEHOLDER)
    return before, after


def synthesize_rows(count: int, generator: AnswerGenerator, settings: SynthesisSettings) -> SynthesizedRows:
    """Return rows that a model writes, the same ones however often it is interrupted.

    Each round draws as many users' turns as rows are missing, in whole batches, drops faulty and repeated ones, and
    answers the others. There are fewer rows than asked for if `DRAWS_PER_ROW` draws a row do not give more.

    Args:
        count: the number of rows.
        generator: generates with the instruction-tuned model.
        settings: how.

    Raises:
        InputError: there is no chat template to write users' turns by, or no draw gave a row.
    """
    prefix = user_prefix(generator.tokenizer, settings.chat_template_kwargs)
    texts, rows, rejected = [], [], Counter()
    try:
        while len(rows) < count and len(texts) < DRAWS_PER_ROW * count:
            draws = _whole_batches(count - len(rows), settings.prompts.batch_size)
            start, drawn = len(texts), _draw(prefix, len(texts), draws, generator, settings)
            texts += [answer.text.strip() for answer in drawn]
            faults = _prompt_faults(texts, start, drawn)
            rejected.update(f"prompt: {fault}" for fault in faults if fault)
            asked = [text for text, fault in zip(texts[start:], faults, strict=True) if not fault]
            for row, fault in _answered(asked, generator, settings):
                rejected.update([f"answer: {fault}"] if fault else [])
                rows += [] if fault else [row]
    finally:
        generator.engine.close()
    if not rows:
        raise InputError(f"of {len(texts)} users' turns that the model wrote none gave a row: {dict(rejected)}")
    return SynthesizedRows(rows[:count], len(texts), dict(rejected))


def _whole_batches(count: int, batch_size: int) -> int:
    return -(-count // batch_size) * batch_size


def _draw(
    prefix: list[int], start: int, count: int, generator: AnswerGenerator, settings: SynthesisSettings
) -> list[Answer]:
    """Return users' turns, each with a seed of its own."""
    prompts = [Prompt(prefix, [], sample=sample) for sample in range(start, start + count)]
    return generator.answers(prompts, settings.prompts)


def _prompt_faults(texts: Sequence[str], start: int, drawn: Sequence[Answer]) -> list[str | None]:
    """Return why users' turns from `start` on are dropped, None for those that are answered."""
    first = equal_texts(texts)
    faults = []
    for index, answer in enumerate(drawn, start):
        fault = text_fault(texts[index], answer.finished)
        faults.append(fault or (DUPLICATE if first[index] != index else None))
    return faults


def _answered(
    instructions: Sequence[str], generator: AnswerGenerator, settings: SynthesisSettings
) -> list[tuple[dict, str | None]]:
    """Return each users' turn with its answer as a row, and the answer's fault."""
    conversations = [[{"role": "user", "content": text}] for text in instructions]
    variables = dict(settings.chat_template_kwargs)
    prompts = [
        Prompt(
            prompt_ids(generator.tokenizer, messages, chat_template_kwargs=variables),
            messages,
            chat_template_kwargs=variables,
        )
        for messages in conversations
    ]
    answers = generator.answers(prompts, settings.answers)
    return [
        _row(prompt, thought_opened_by(generator.tokenizer, prompt.ids) + answer.text, answer.finished)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _row(prompt: Prompt, text: str, finished: bool) -> tuple[dict, str | None]:
    answer = answer_after_thoughts(text)
    fault = "truncated" if answer is None else text_fault(answer, finished, prompt.messages[0]["content"])
    completion = [{"role": "assistant", "content": (answer or "").strip()}]
    return {"prompt": prompt.messages, "completion": completion}, fault

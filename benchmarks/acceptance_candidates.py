"""The candidates of acceptance.py: answers that a model writes, stored as JSON Lines, and pairs with known truth."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from acceptance_questions import KINDS, Question, is_negated, most_similar, read_rows
from tqdm.auto import tqdm

from trl_prune.data.rewriting.answer_types import shipped_answer_types
from trl_prune.data.rewriting.text_faults import text_fault
from trl_prune.data.starter import starter_rows


# How an answer was asked for: with the reference shown, with a wrong one shown, or with the instruction alone.
SHOWN, WRONG_SHOWN, UNAIDED = "reference shown", "wrong reference shown", "unaided"
NEW_TOKENS, BATCH, TEMPERATURE = 64, 32, 0.7
BRIEFLY = " Answer in one short sentence."
PARAPHRASES = Path(__file__).parent / "acceptance_paraphrases.jsonl"
# At most this many pairs of a kind with the same truth, so that kinds and truths weigh about the same.
PAIRS = 60
NAMES = ("Arnold", "Beatrix", "Corinth", "Dalton", "Estonia", "Fairbanks")
OPPOSITES = (
    "warm cold", "hot cold", "more less", "before after", "always never", "up down", "high low", "large small",
    "fast slow", "increase decrease", "inside outside", "first last", "strong weak", "safe dangerous", "light dark",
    "open close", "right left", "long short", "early late", "dry wet", "many few", "easy hard", "good bad",
    "full empty",
)  # fmt: skip
SYNONYMS = (
    "large big", "fast quickly", "begins starts", "helps assists", "help assist", "often frequently", "store shop",
    "happens occurs", "small little", "hard difficult", "usually normally", "because since", "many numerous",
    "gets receives", "buy purchase", "shows displays", "mainly mostly", "about roughly", "person individual",
    "people humans", "parts pieces", "makes creates", "make create", "made built", "program application",
    "sends transmits", "protect guard", "moves travels", "ensure guarantee", "beautiful lovely", "while whereas",
)  # fmt: skip
OPPOSITE, SYNONYM = (
    {word: other for pair in map(str.split, pairs) for word, other in (pair, pair[::-1])}
    for pairs in (OPPOSITES, SYNONYMS)
)
AUXILIARY = r"\b(is|are|was|were|can|will|do|does|should|must|would|could|may|has|have)\b"


@dataclass(frozen=True)
class Candidate:
    """An answer that the model wrote: to which question, how it was asked for, and whether it ended by itself."""

    name: str
    mode: str
    text: str
    finished: bool


@dataclass(frozen=True)
class Pair:
    """A reference and a rewrite with the truth.

    Attributes:
        name: the question's.
        kind: one of `KINDS`.
        origin: how the rewrite came about.
        instruction: what the user asks.
        reference: the right answer.
        rewrite: the other answer.
        agrees: whether it agrees with the reference.
    """

    name: str
    kind: str
    origin: str
    instruction: str
    reference: str
    rewrite: str
    agrees: bool


def wanted(question: Question) -> Iterator[tuple[str, str, list[dict]]]:
    """Yield the question's name, and each mode with its prompt."""
    references = {SHOWN: question.reference, WRONG_SHOWN: question.wrong_reference}
    asked = [{"role": "user", "content": question.instruction}]
    for mode, reference in references.items():
        if reference is not None:
            yield question.name, mode, shipped_answer_types()["open"].request(asked, reference)
    if question.kind in ("number", "choice"):
        yield question.name, UNAIDED, [{"role": "user", "content": question.instruction + BRIEFLY}]


@torch.inference_mode()
def candidates(questions: Sequence[Question], model, tokenizer, path: Path) -> list[Candidate]:
    """Return the model's answers; those that are not in the file yet are generated and appended batch by batch."""
    stored = [Candidate(**row) for row in read_rows(path)] if path.is_file() else []
    done = {(candidate.name, candidate.mode) for candidate in stored}
    missing = [entry for question in questions for entry in wanted(question) if entry[:2] not in done]
    missing.sort(key=lambda entry: (entry[1] == UNAIDED, -len(entry[2][-1]["content"])))
    for start in tqdm(range(0, len(missing), BATCH), desc="answers"):
        batch = missing[start : start + BATCH]
        for sampled in (False, True):
            stored += _written([entry for entry in batch if (entry[1] == UNAIDED) == sampled], model, tokenizer, path)
    return stored


def _written(entries, model, tokenizer, path):
    if not entries:
        return []
    texts = [tokenizer.apply_chat_template(entry[2], tokenize=False, add_generation_prompt=True) for entry in entries]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if entries[0][1] == UNAIDED:
        sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0}
        torch.manual_seed(len(texts[0]))
    output = model.generate(**inputs, **sampling, max_new_tokens=NEW_TOKENS)[:, inputs["input_ids"].shape[1] :]
    ends = set(torch.tensor([model.generation_config.eos_token_id]).flatten().tolist())
    written = [
        Candidate(name, mode, tokenizer.decode(ids, skip_special_tokens=True).strip(), bool(ends & set(ids.tolist())))
        for (name, mode, _), ids in zip(entries, output, strict=True)
    ]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(candidate)) + "\n" for candidate in written)
    return written


def labelled_pairs(questions: Sequence[Question], answers: Sequence[Candidate]) -> list[Pair]:
    """Return pairs with known truth, at most `PAIRS` of a kind with the same truth."""
    rng = random.Random(0)
    by_name = {question.name: question for question in questions}
    pairs = [*_generated(by_name, answers), *_stated(questions, rng), *_opened(questions, answers, rng)]
    pairs = list({(pair.name, pair.rewrite): pair for pair in pairs if pair.rewrite != pair.reference}.values())
    chosen = []
    for kind in KINDS:
        for agrees in (True, False):
            group = [pair for pair in pairs if pair.kind == kind and pair.agrees == agrees]
            chosen += rng.sample(group, min(PAIRS, len(group)))
    return chosen


def _generated(by_name, answers):
    """Yield the model's answers that would reach the rule and whose truth is clear."""
    for answer in answers:
        question = by_name[answer.name]
        truth = question.truth(answer.text)
        if truth is not None and _is_acceptable(question, answer):
            yield _pair(question, answer.mode, answer.text, truth)


def _is_acceptable(question, answer):
    return text_fault(answer.text, answer.finished, question.instruction) is None


def _pair(question, origin, rewrite, agrees):
    return Pair(question.name, question.kind, origin, question.instruction, question.reference, rewrite, agrees)


def _stated(questions, rng):
    """Yield answers that state or deny a label."""
    for question in questions:
        if question.kind == "class":
            sentences = _verdicts(question) if question.labels[0] in ("yes", "no") else _labelled(question, rng)
            for agrees in (True, False):
                texts = [text for text, truth in sentences if truth == agrees]
                yield _pair(question, "stated label", rng.choice(texts), agrees)


def _labelled(question, rng):
    right, other = question.labels[0], rng.choice(question.labels[1:])
    sentences = [
        (f"It is {right}.", True),
        (f"It is {right}, not {other}.", True),
        (f"I think this one is {right} rather than {other}.", True),
        (f"This is not {right}.", False),
        (f"It isn't {right}.", False),
        (f"It is {other}, not {right}.", False),
        (f"I think this one is {other} rather than {right}.", False),
    ]
    if len(question.labels) == 2:
        sentences += [(f"This is not {other}.", True), (f"Not {other}.", True), (f"Not {right}.", False)]
    return sentences


def _verdicts(question):
    yes = [
        "That is true.", "Yes, it is true.", "Indeed, that is correct.", "Yes, I think so.", "The answer is yes.",
    ]  # fmt: skip
    no = [
        "That is not true.", "No, it is not.", "That is incorrect.", "No, I don't think so.", "The answer is no.",
        "It isn't true.",
    ]  # fmt: skip
    says_yes = question.labels[0] == "yes"
    return [(text, says_yes) for text in yes] + [(text, not says_yes) for text in no]


def _opened(questions, answers, rng):
    """Yield pairs of open questions: answers to others, changed facts, and paraphrases."""
    opened = [question for question in questions if question.kind == "open"]
    by_name = {question.name: question for question in opened}
    shown = {
        answer.name: answer.text
        for answer in answers
        if answer.name in by_name
        and by_name[answer.name].truth(answer.text)
        and _is_acceptable(by_name[answer.name], answer)
    }
    for question in opened:
        others = [other for other in opened if other is not question]
        other = others[most_similar(question.instruction, [other.instruction for other in others])]
        yield _pair(
            question, "answer to another", rng.choice([other.reference, shown.get(other.name, other.reference)]), False
        )
        for text in dict.fromkeys([question.reference, shown.get(question.name, question.reference)]):
            changed = changed_facts(text, question.reference, rng)
            if changed:
                name = rng.choice(sorted(changed))
                yield _pair(question, f"changed {name}", changed[name], False)
        synonym = _replaced(question.reference, question.reference, r"\b[a-z]+\b", SYNONYM.get)
        if synonym:
            yield _pair(question, "one synonym", synonym, True)
        sentences = re.split(r"(?<=[.!?])\s+", question.reference)
        if len(sentences) > 1:
            shorter = rng.choice([sentences[0], f"Certainly! {' '.join(sentences)}", " ".join(sentences[:-1])])
            yield _pair(question, "shortened", shorter, True)
    yield from _paraphrased()


def _paraphrased():
    rows = [row for row in starter_rows() if row["answer_type"] == "open"]
    for written in read_rows(PARAPHRASES):
        row = next(row for row in rows if written["question"] in row["prompt"][0]["content"])
        instruction, reference = row["prompt"][0]["content"], row["completion"][0]["content"]
        for column in ("agrees", "contradicts"):
            origin = f"by hand, {column}"
            yield Pair(instruction, "open", origin, instruction, reference, written[column], column == "agrees")


def changed_facts(text: str, reference: str, rng: random.Random) -> dict[str, str]:
    """Return versions of a text in which one fact of the reference too is changed, by the kind of fact."""
    number = r"(?<![\d.])\d+(?![\d.])"
    changes = {
        "number": _replaced(text, reference, number, lambda found: str(int(found) + rng.choice([1, 3, 20]))),
        "name": _replaced(text, reference, r"(?<=[a-z,] )[A-Z][a-z]{3,}\b", lambda _: rng.choice(NAMES)),
        "opposite": _replaced(text, reference, r"\b[a-z]+\b", OPPOSITE.get),
        "negation": _negated(text, reference),
    }
    return {kind: changed for kind, changed in changes.items() if changed is not None}


def _replaced(text, reference, pattern, replacement):
    shared = set(re.findall(pattern, reference))
    for match in re.finditer(pattern, text):
        new = replacement(match[0]) if match[0] in shared else None
        if new:
            return text[: match.start()] + new + text[match.end() :]
    return None


def _negated(text, reference):
    denied = re.search(r"\b(do|does|is|are|can|should)(?: not|n't) (\w+)", text)
    if denied and denied[2] in reference and is_negated(reference, denied[2]):
        return text[: denied.start()] + f"{denied[1]} {denied[2]}" + text[denied.end() :]
    for match in re.finditer(AUXILIARY + r" (?!not\b)(\w+)", text):
        if match[0] in reference:
            return text[: match.start()] + f"{match[1]} not {match[2]}" + text[match.end() :]
    return None

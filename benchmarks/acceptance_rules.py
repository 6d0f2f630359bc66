"""The rules of acceptance.py: scores of a pair, by the texts alone or by the dense model, and thresholds on them."""

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from acceptance_candidates import Pair
from acceptance_questions import read_rows
from tqdm.auto import tqdm

from trl_prune.data.rewriting.agreement import answers_agree


BATCH, PER_WRITE = 8, 64
BETA = 0.5  # precision counts twice as much as recall
YES_NO = (
    "Question: {instruction}\n\nAnswer 1: {reference}\n\nAnswer 2: {rewrite}\n\nDo both answers say the same? Reply "
    "with Yes or No only."
)
DRAFT = "{instruction}\n\nA draft of the answer: {draft}"
BLANK = "N/A"


# A user message and the text that follows, whose mean log probability is wanted; if None, the log odds of Yes to No.
Request = tuple[str, str | None]


class Judge:
    """The dense model, asked for log probabilities."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.yes, self.no = (self._ids(word)[0] for word in ("Yes", "No"))

    @torch.inference_mode()
    def answers(self, requests: Sequence[Request]) -> list[float]:
        """Return what the requests ask for, in nats, and log probabilities per token."""
        encoded = [self._encoded(*request) for request in requests]
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index][0]))
        results = [0.0] * len(encoded)
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            for index, value in zip(indices, self._batch([encoded[index] for index in indices]), strict=True):
                results[index] = value
        return results

    def _ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _encoded(self, message, continuation):
        chat = [{"role": "user", "content": message}]
        prompt = self._ids(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        return prompt + self._ids(continuation or ""), len(prompt)

    def _batch(self, encoded):
        width = max(len(ids) for ids, _ in encoded)
        rows = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in encoded])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in encoded])
        hidden = self.model.get_decoder()(input_ids=rows, attention_mask=mask, use_cache=False).last_hidden_state
        head = self.model.get_output_embeddings()
        for row, (ids, start) in enumerate(encoded):
            log_probs = head(hidden[row, start - 1 : max(len(ids) - 1, start)]).float().log_softmax(-1)
            if len(ids) == start:
                yield (log_probs[0, self.yes] - log_probs[0, self.no]).item()
            else:
                yield log_probs.gather(1, torch.tensor(ids[start:])[:, None]).mean().item()


def model_scores(pairs: Sequence[Pair], judge: Judge, path: Path) -> list[dict[str, float]]:
    """Return what the dense model says of each pair; what the file lacks is computed and appended."""
    stored = {row["key"]: row["value"] for row in read_rows(path)} if path.is_file() else {}
    requests = {_key(request): request for pair in pairs for request in _requests(pair).values()}
    missing = [key for key in requests if key not in stored]
    for start in tqdm(range(0, len(missing), PER_WRITE), desc="log probabilities"):
        keys = missing[start : start + PER_WRITE]
        values = dict(zip(keys, judge.answers([requests[key] for key in keys]), strict=True))
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"key": key, "value": value}) + "\n" for key, value in values.items())
        stored |= values
    return [{name: stored[_key(request)] for name, request in _requests(pair).items()} for pair in pairs]


def _key(request):
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:16]


def _requests(pair):
    texts = {"instruction": pair.instruction, "reference": pair.reference}
    return {
        "odds": (YES_NO.format(**texts, rewrite=pair.rewrite), None),
        "blank odds": (YES_NO.format(**texts, rewrite=BLANK), None),
        "reference given rewrite": (DRAFT.format(instruction=pair.instruction, draft=pair.rewrite), pair.reference),
        "reference": (pair.instruction, pair.reference),
        "rewrite given reference": (DRAFT.format(instruction=pair.instruction, draft=pair.reference), pair.rewrite),
        "rewrite": (pair.instruction, pair.rewrite),
    }


Score = Callable[[Pair, dict[str, float]], float]


def lexical(pair: Pair, _: object = None) -> float:
    """Return 1 if the texts show no contradiction, else 0."""
    return float(answers_agree(pair.instruction, pair.reference, pair.rewrite))


def odds(_: Pair, scores: dict[str, float]) -> float:
    """Return the log odds of Yes, less those with a blank second answer."""
    return scores["odds"] - scores["blank odds"]


def reference_gain(_: Pair, scores: dict[str, float]) -> float:
    """Return how much likelier the rewrite as a draft makes the reference, nats a token."""
    return scores["reference given rewrite"] - scores["reference"]


def rewrite_gain(_: Pair, scores: dict[str, float]) -> float:
    """Return how much likelier the reference as a draft makes the rewrite, nats a token."""
    return scores["rewrite given reference"] - scores["rewrite"]


RULES: dict[str, Score] = {
    "accept all (the paper's)": lambda *_: 1.0,
    "key facts": lexical,
    "yes/no odds": lambda _, scores: scores["odds"],
    "yes/no odds, calibrated": odds,
    "reference likelier": reference_gain,
    "reference's likelihood": lambda _, scores: scores["reference given rewrite"],
    "rewrite likelier": rewrite_gain,
    "rewrite's likelihood": lambda _, scores: scores["rewrite given reference"],
}
# Rules made of two others.
BOTH, EITHER, SUM = "and", "or", "+"
COMBINED = (
    ("key facts", BOTH, "yes/no odds, calibrated"),
    ("key facts", EITHER, "yes/no odds, calibrated"),
    ("key facts", BOTH, "reference likelier"),
    ("key facts", BOTH, "rewrite likelier"),
    ("key facts", BOTH, "rewrite's likelihood"),
    ("key facts", EITHER, "rewrite's likelihood"),
    ("reference likelier", SUM, "rewrite likelier"),
    ("yes/no odds, calibrated", SUM, "rewrite's likelihood"),
)


def combined(left: Sequence[float], how: str, right: Sequence[float]) -> list[float]:
    """Return the scores of a rule made of two; `and` and `or` need 0 or 1 on the left, a sum standardises both."""
    if how == SUM:
        return [one + other for one, other in zip(_standard(left), _standard(right), strict=True)]
    certain = {BOTH: (0.0, -math.inf), EITHER: (1.0, math.inf)}[how]
    return [certain[1] if one == certain[0] else other for one, other in zip(left, right, strict=True)]


def _standard(values):
    mean, spread = statistics.fmean(values), statistics.pstdev(values) or 1.0
    return [(value - mean) / spread for value in values]


def precision_recall(truths: Iterable[bool], accepted: Iterable[bool]) -> tuple[float, float, float]:
    """Return the precision and recall of accepting, and F0.5."""
    outcomes = list(zip(truths, accepted, strict=True))
    right = sum(truth and accept for truth, accept in outcomes)
    precision = right / max(sum(accept for _, accept in outcomes), 1)
    recall = right / max(sum(truth for truth, _ in outcomes), 1)
    both = BETA**2 * precision + recall
    return precision, recall, (1 + BETA**2) * precision * recall / both if both else 0.0


def is_held_out(pair: Pair) -> bool:
    """Return whether a pair belongs to the half of the questions on which no rule was developed or fitted."""
    return hashlib.sha256(pair.name.encode()).digest()[0] % 2 == 1


def fitted_threshold(pairs: Sequence[Pair], scores: Sequence[float]) -> float:
    """Return the threshold with the highest F0.5 on the pairs that are not held out."""
    known = [(pair.agrees, score) for pair, score in zip(pairs, scores, strict=True) if not is_held_out(pair)]
    truths = [truth for truth, _ in known]
    return max(
        sorted({score for _, score in known}),
        key=lambda threshold: precision_recall(truths, [score >= threshold for _, score in known])[2],
    )

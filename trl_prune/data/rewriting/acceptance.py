"""Which rewritten answers are accepted (conditional selection, 2410.09982)."""

from collections.abc import Callable
from dataclasses import dataclass

from trl_prune.data.rewriting.agreement import answers_agree
from trl_prune.data.rewriting.arithmetic import wrong_equation
from trl_prune.data.rewriting.extractors.code_tests import run_tests
from trl_prune.data.rewriting.extractors.registry import EXTRACTORS
from trl_prune.data.rewriting.requests import RewritingRequest
from trl_prune.data.rewriting.text_faults import text_fault
from trl_prune.data.rewriting.thoughts import answer_after_thoughts


# The verdict on an accepted answer; every other one is why the reference is kept.
ACCEPTED = "accepted"
KEEP_THOUGHTS, CUT_THOUGHTS = "keep", "cut"
# Limits of a row's tests.
TEST_SECONDS, TEST_BYTES = 10, 2**30


@dataclass(frozen=True)
class Accepting:
    """How rewritten answers are accepted.

    Attributes:
        thoughts: whether a reasoning model's thoughts are `cut` from a rewritten answer or `keep` stands for them to
            be trained on; they are never read as the answer.
        run_tests: whether rewritten code is run with its row's tests.
    """

    thoughts: str = CUT_THOUGHTS
    run_tests: bool = False


@dataclass(frozen=True)
class Verdict:
    """The judgement of one rewritten answer.

    Attributes:
        reason: `accepted`, or why the reference is kept.
        answer: the text to train on if accepted.
    """

    reason: str
    answer: str

    @property
    def accepted(self) -> bool:
        """Whether the rewritten answer is used."""
        return self.reason == ACCEPTED


def judge(request: RewritingRequest, text: str, finished: bool, accepting: Accepting) -> Verdict:
    """Return the verdict on a rewritten text.

    Args:
        request: what was asked for.
        text: the opening tag of a thought if the prompt ends in one, the prefill, and what the model wrote after it.
        finished: whether generation ended by itself, rather than at `max_new_tokens`.
        accepting: how to judge.
    """
    answer = answer_after_thoughts(text)
    if answer is None:
        return Verdict("truncated", "")
    thoughts = text.removesuffix(answer)
    # A weak model repeats the last line of the request, "### Response:", before its answer.
    heading = request.answer_type.last_heading
    answer = answer.lstrip().removeprefix(heading).lstrip() if heading else answer
    fault = text_fault(answer, finished, request.turn.instruction)
    if fault is None:
        fault = next(
            filter(None, (CHECKS[name](request, answer, accepting) for name in request.answer_type.checks)), None
        )
    kept = thoughts + answer if accepting.thoughts == KEEP_THOUGHTS else answer
    return Verdict(fault or ACCEPTED, kept.strip())


# Returns why an answer is rejected, or None.
Check = Callable[[RewritingRequest, str, Accepting], str | None]


def _same_answer(request: RewritingRequest, answer: str, _: Accepting) -> str | None:
    extractor = EXTRACTORS[request.answer_type.extractor]
    if extractor.agree(answer, request.expected):
        return None
    return "no_answer" if extractor.extract(answer) is None else "disagrees"


def _right_steps(_: RewritingRequest, answer: str, __: Accepting) -> str | None:
    return "wrong_step" if wrong_equation(answer) else None


def _agreement(request: RewritingRequest, answer: str, _: Accepting) -> str | None:
    return None if answers_agree(request.turn.instruction, request.turn.answer, answer) else "contradicts"


def _tests(request: RewritingRequest, answer: str, accepting: Accepting) -> str | None:
    if not accepting.run_tests or not request.tests:
        return None
    code = EXTRACTORS["code"].extract(answer)
    passed = run_tests(str(code), request.tests, request.entry_point, TEST_SECONDS, TEST_BYTES)
    return None if passed else "fails_tests"


CHECKS: dict[str, Check] = {
    "same_answer": _same_answer,
    "right_steps": _right_steps,
    "agreement": _agreement,
    "tests": _tests,
}

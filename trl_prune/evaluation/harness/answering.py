"""A transformers model behind its stored answers: lm-eval's batches hold what was never asked before."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.errors import InputError
from trl_prune.evaluation.generation_settings import plain_settings
from trl_prune.evaluation.harness.answers import Answer, request_key
from trl_prune.evaluation.harness.evaluating import Progress
from trl_prune.evaluation.harness.settings import EvaluatedModel, EvaluationSettings


Item = tuple[str, int]
logger = logging.getLogger(__name__)


class AnsweringModel(LM):
    """A model behind its stored answers; it is loaded when the first request has none.

    Equal requests of likelihoods and greedy answers are asked once. Sampled answers are stored by task, seed and how
    often the same was asked before, so that `repeats` of a task are different samples.
    """

    def __init__(self, model: EvaluatedModel, settings: EvaluationSettings, progress: Progress | None = None):
        super().__init__()
        self.evaluated, self.settings, self.progress = model, settings, progress
        self.tokenizer, self.chat_template_args = model.tokenizer, settings.chat_template_kwargs
        self._forward: ForwardModel | None = None
        self._finished: set[Item] = set()

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name."""
        return self.tokenizer.name_or_path

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a rendered conversation."""
        # It reads the tokenizer and the template's variables only, and so needs no model.
        return HFLM.apply_chat_template(self, chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether it is the greedy one."""
        return [tuple(answer) for answer in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log-likelihood of each text."""
        return self._answers("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the generated texts."""
        return self._answers("generate_until", requests)

    def _answers(self, kind: str, requests: list[Instance]) -> list[Answer]:
        stored = self.evaluated.answers
        keys = request_keys(kind, requests, self.settings.seed)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in stored}
        waiting = _Waiting(keys, requests, missing)
        self._report(waiting.complete, were_stored=True)
        if missing:
            self._ask(kind, missing, waiting)
        return [stored[key] for key in keys]

    def _ask(self, kind: str, missing: dict[str, Instance], waiting: "_Waiting") -> None:
        unanswered = _Unanswered(kind, missing)

        def store(arguments: Sequence, answer: Answer) -> None:
            key, task = unanswered.pop(arguments)
            self._check(answer, task)
            self.evaluated.answers.add(key, answer)
            self._report(waiting.answered(key), were_stored=False)

        if self._forward is None:
            self._forward = ForwardModel(self.evaluated, self.settings)
        if any(map(is_sampled, missing.values())):
            torch.manual_seed(int(request_key(kind, sorted(missing))[:15], 16))
        cut = self._forward.cut
        self._forward.ask(kind, list(missing.values()), store, lambda context: self._refuse(unanswered.task(context)))
        self._warn(self._forward.cut - cut, len(missing))

    def _warn(self, cut: int, asked: int) -> None:
        """Say how many prompts did not fit, which lm-eval shortens."""
        if cut:
            logger.warning(
                "model %s: %d of %d prompts are longer than its context of %d tokens; their start is cut off",
                self.evaluated.name,
                cut,
                asked,
                self._forward.max_length,
            )

    def _report(self, items: Iterable[Item], were_stored: bool) -> None:
        new = [item for item in items if item not in self._finished]
        self._finished.update(new)
        if self.progress is not None:
            for task, count in Counter(task for task, _ in new).items():
                self.progress(task, count, were_stored)

    def _check(self, answer: Answer, task: str) -> None:
        likelihood = answer[0] if isinstance(answer, list | tuple) else answer
        if likelihood != likelihood:  # NaN alone
            self._refuse(task)

    def _refuse(self, task: str) -> None:
        raise InputError(
            f"model {self.evaluated.name!r} gives NaN on task {task!r}: its weights are broken, or too large for "
            f"{str(self._forward.model.dtype).removeprefix('torch.')}"
        )


def is_sampled(request: Instance) -> bool:
    """Return whether an answer is drawn at random."""
    if request.request_type != "generate_until":
        return False
    options = request.args[1]
    return bool(options.get("do_sample", options.get("temperature", 0) > 0))


def request_keys(kind: str, requests: list[Instance], seed: int) -> list[str]:
    """Return the keys of requests; those of equal requests are equal unless answers are sampled."""
    asked: Counter = Counter()
    keys = []
    for request in requests:
        draw = None
        if is_sampled(request):
            same = (request.task_name, request_key(kind, request.args))
            draw = (request.task_name, seed, asked[same])
            asked[same] += 1
        keys.append(request_key(kind, request.args, draw))
    return keys


class _Waiting:
    """The items of tasks that wait for answers.

    Attributes:
        complete: the items that have all their answers already.
    """

    def __init__(self, keys: list[str], requests: list[Instance], missing: dict[str, Instance]):
        self._items: dict[str, set[Item]] = defaultdict(set)
        for key, request in zip(keys, requests, strict=True):
            self._items[key].add((request.task_name, request.doc_id))
        self._left = Counter(item for key in missing for item in self._items[key])
        self.complete = {item for items in self._items.values() for item in items} - set(self._left)

    def answered(self, key: str) -> list[Item]:
        """Return the items for which a request was the last one to be answered."""
        self._left.subtract(self._items[key])
        return [item for item in self._items[key] if self._left[item] == 0]


class _Unanswered:
    """The requests that a model is asked, found by their arguments, which is all that lm-eval says of an answer."""

    def __init__(self, kind: str, missing: dict[str, Instance]):
        self.kind = kind
        self._tasks = {request.args[0]: request.task_name for request in missing.values()}
        self._by_arguments: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for key, request in missing.items():
            self._by_arguments[request_key(kind, request.args)].append((key, request.task_name))

    def pop(self, arguments: Sequence) -> tuple[str, str]:
        """Return the key and the task of a request with these arguments, each once."""
        return self._by_arguments[request_key(self.kind, arguments)].pop(0)

    def task(self, context: str) -> str:
        """Return a task that asks with a context."""
        return self._tasks[context]


class _Hook:
    """lm-eval's hook for caches, which it calls as soon as it has an answer."""

    def __init__(self, store: Callable[[Sequence, Answer], None]):
        self.store = store

    def add_partial(self, attr: str, req: Sequence, res: Answer) -> None:  # noqa: ARG002
        self.store(req, res)


class ForwardModel(HFLM):
    """lm-eval's transformers model, without its progress bars; it stops at the first logit that is NaN.

    Attributes:
        cut: how many prompts were longer than the model's context, so that their start was cut off.
    """

    def __init__(self, model: EvaluatedModel, settings: EvaluationSettings):
        loaded: PreTrainedModel = model.load()
        tokenizer: PreTrainedTokenizerBase = model.tokenizer
        super().__init__(
            pretrained=loaded,
            tokenizer=tokenizer,
            batch_size=settings.batch_size,
            device=str(loaded.device),
            think_end_token=settings.think_end_token,
        )
        self.cut = 0
        self._contexts: list[str] = []
        self._refuse: Callable[[str], None] | None = None

    def ask(
        self,
        kind: str,
        requests: list[Instance],
        store: Callable[[Sequence, Answer], None],
        refuse: Callable[[str], None],
    ) -> None:
        """Answer requests.

        Args:
            kind: the method of lm-eval's model.
            requests: the requests.
            store: takes each answer, with the arguments of its request, as soon as it is there.
            refuse: raises the error for a prompt whose logits are NaN.
        """
        self.set_cache_hook(_Hook(store))
        self._refuse = refuse
        # lm-eval sorts requests by length over all tasks, but hands over the likelihoods of texts only at the end.
        size = self.batch_size if kind == "loglikelihood_rolling" else len(requests)
        for start in range(0, len(requests), size):
            getattr(self, kind)(requests[start : start + size], disable_tqdm=True)

    def _loglikelihood_tokens(
        self,
        requests: list,
        disable_tqdm: bool = True,  # noqa: ARG002
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        self.cut += sum(len(context) + len(text) > self.max_length + 1 for _, context, text in requests)
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def tok_batch_encode(self, strings: list[str], **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode a batch of prompts."""
        self._contexts = list(strings)
        longest = options.get("left_truncate_len")
        # A token has a character at least, so that few are encoded twice.
        self.cut += sum(len(text) > longest and len(self.tok_encode(text)) > longest for text in strings if longest)
        return super().tok_batch_encode(strings, **options)

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **options: object
    ) -> torch.Tensor:
        processors = LogitsProcessorList([self._check_logits])
        with plain_settings(self.model):
            return super()._model_generate(
                context, max_length=max_length, stop=stop, logits_processor=processors, **options
            )

    def _check_logits(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        is_nan = logits.isnan().any(-1)
        if is_nan.any():
            self._refuse(self._contexts[int(is_nan.int().argmax())])
        return logits

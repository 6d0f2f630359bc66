"""Answers by a server with OpenAI's API: vLLM, SGLang, llama.cpp, `transformers serve` and others."""

import asyncio
import json
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from trl_prune.data.generation.engine import in_groups
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.server_connection import ServerConnection, ServerFailure, openai_package
from trl_prune.data.generation.server_messages import server_messages, without_nulls
from trl_prune.data.generation.store import answer_seed
from trl_prune.data.rendering import accepted_messages
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Completion
    from openai.types.chat import ChatCompletion

ENDPOINTS = ("chat", "completions")
# A group that is not full is handed over, and stored, after this time.
GROUP_SECONDS = 10.0
# Before a request is sent again whose reply was no completion; the client itself repeats those that failed.
REPEAT_SECONDS = 1.0


@dataclass
class ServerEngine:
    """Generates with a model behind an HTTP server.

    Requests that time out, cannot connect, or get the status 408, 409, 429 or 5xx are sent again after exponentially
    growing pauses, or after the `Retry-After` that the server names; others are not. Servers may apply the sampling
    settings of the checkpoint's generation config where a request names none: temperature and top_p are named here;
    the names of others, such as `repetition_penalty`, differ between servers: set them in `extra_body`.

    Args:
        teacher: the model that is served; only its tokenizer and fingerprint are used.
        url: the server's address, with or without `/v1`.
        model: its name on the server; by default the only one that the server lists.
        endpoint: `chat`, where the server applies its chat template, or `completions`, where the prompt is rendered
            here, so that a prefill is continued exactly.
        concurrency: requests in flight.
        timeout_s: seconds until a request counts as failed.
        retries: how often a failed request is sent again.
        api_key_env: the environment variable that holds the API key, if the server wants one.
        extra_body: further fields of each request.

    Raises:
        InputError: an argument is wrong.
    """

    teacher: LazyTeacher
    url: str
    model: str | None = None
    endpoint: str = "chat"
    concurrency: int = 16
    timeout_s: float = 120.0
    retries: int = 5
    api_key_env: str = "OPENAI_API_KEY"
    extra_body: dict | None = None

    def __post_init__(self):
        if self.endpoint not in ENDPOINTS:
            raise InputError(f"the server's endpoint {self.endpoint!r} is unknown; allowed: {', '.join(ENDPOINTS)}")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise InputError(f"the server's url {self.url!r} must start with http:// or https://")
        if self.concurrency < 1:
            raise InputError(f"the server's concurrency is {self.concurrency}; it must be at least 1")
        self.connection = ServerConnection(self.url, self.timeout_s, self.retries, self.api_key_env)

    @property
    def fingerprint(self) -> str:
        """The model and how it is asked, not where it is served: stored answers need no server, or another one."""
        return json.dumps([self.endpoint, self.model, self.teacher.fingerprint, self.extra_body], sort_keys=True)

    @cached_property
    def model_name(self) -> str:
        """The model's name on the server.

        Raises:
            InputError: it is not given, and the server does not answer or does not list exactly one.
        """
        if self.model is not None:
            return self.model
        models = self.connection.models()
        if models is None or len(models) != 1:
            listed = f"serves {len(models)} models: {', '.join(models)}" if models else "lists no models"
            raise InputError(f"name one with `model`, because the server {self.url} {listed}")
        return models[0]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[dict[int, Answer]]:
        """Yield groups of `sampling.batch_size` answers, or those of `GROUP_SECONDS`, by the indices of their prompts.

        Raises:
            InputError: no server answers, or it rejects a request or fails for longer than the retries last.
        """
        if not prompts:
            return
        self.connection.models()  # whether a server answers
        stored = 0
        try:
            for group in in_groups(self._answers(prompts, sampling), sampling.batch_size, GROUP_SECONDS):
                yield group
                stored += len(group)
        except ServerFailure as failure:
            raise InputError(
                f"the server {self.url} {failure}; {stored} of the {len(prompts)} missing answers are stored, and the "
                "same command generates the rest"
            ) from failure

    def close(self) -> None:
        """Do nothing: the model is in the server's memory, and connections end with `generate`."""

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Answer]]:
        """Yield answers in the order in which they arrive.

        Requests run in a thread, so that they go on while a group is stored, and in a notebook, which has an event
        loop of its own.
        """
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        waiting = iter(list(enumerate(prompts)))
        requests = self._ask_all(waiting, sampling, arrived)
        threading.Thread(target=asyncio.run, args=(requests,), daemon=True).start()
        try:
            while (item := arrived.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            _exhaust(waiting)

    async def _ask_all(
        self, waiting: Iterator[tuple[int, Prompt]], sampling: Sampling, arrived: queue.SimpleQueue
    ) -> None:
        """Put all answers into the queue, then None or the error that ended it.

        After an error nothing more is asked, but requests in flight end: the server has worked on them.
        """

        async def ask_in_turn() -> None:
            for index, prompt in waiting:
                try:
                    arrived.put((index, await self._ask(client, prompt, sampling)))
                except Exception:
                    _exhaust(waiting)
                    raise

        try:
            async with self.connection.client() as client:
                outcomes = await asyncio.gather(
                    *(ask_in_turn() for _ in range(self.concurrency)), return_exceptions=True
                )
            error = next((outcome for outcome in outcomes if outcome is not None), None)
        except Exception as unexpected:  # it must reach the thread that waits
            error = unexpected
        arrived.put(error)

    async def _ask(self, client: "AsyncOpenAI", prompt: Prompt, sampling: Sampling) -> Answer:
        openai = openai_package()
        is_chat = self.endpoint == "chat"
        create = client.chat.completions.create if is_chat else client.completions.create
        request = self._chat_request(prompt) if is_chat else self._completion_request(prompt)
        request |= self._sampling_fields(prompt, sampling)
        request["extra_body"] = request.get("extra_body", {}) | (self.extra_body or {})
        for _ in range(self.retries + 1):
            try:
                answer = _answer_in(await create(**request))
            except json.JSONDecodeError:
                answer = None
            except openai.APIError as error:
                raise self.connection.failure(error) from error
            if answer is not None:
                return answer
            await asyncio.sleep(REPEAT_SECONDS)
        raise ServerFailure("sent replies that are no completions of OpenAI's API")

    def _sampling_fields(self, prompt: Prompt, sampling: Sampling) -> dict:
        fields = {"model": self.model_name, "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
        if sampling.temperature > 0:
            fields |= {"top_p": 1.0, "seed": answer_seed(prompt, sampling, self.fingerprint)}
        return fields

    def _chat_request(self, prompt: Prompt) -> dict:
        tokenizer, tools, variables = self.teacher.tokenizer, without_nulls(prompt.tools), prompt.chat_template_kwargs
        messages = server_messages(accepted_messages(tokenizer, prompt.messages, tools, variables))
        extra = {"chat_template_kwargs": variables} if variables else {}
        if prompt.prefill:
            messages = [*messages, {"role": "assistant", "content": prompt.prefill}]
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        tool_fields = {"tools": tools, "tool_choice": "none"} if tools else {}
        return {"messages": messages, "extra_body": extra} | tool_fields

    def _completion_request(self, prompt: Prompt) -> dict:
        """Return a text that a server's tokenizer turns into the prompt's ids, or the ids where no text does.

        Every server accepts a text, `transformers serve` nothing else. They add the beginning-of-sequence token to it
        if the tokenizer does, so the template's own must go.
        """
        tokenizer = self.teacher.tokenizer
        text = tokenizer.decode(prompt.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for candidate in (text, text.removeprefix(tokenizer.bos_token or "")):
            if tokenizer(candidate)["input_ids"] == prompt.ids:
                return {"prompt": candidate}
        return {"prompt": prompt.ids}


def _exhaust(iterator: Iterator) -> None:
    deque(iterator, maxlen=0)


def _answer_in(reply: "ChatCompletion | Completion") -> Answer | None:
    """Return the answer in a reply, or None if it is no completion: a proxy's page, say."""
    try:
        choice = reply.choices[0]
        # Servers that separate a model's thoughts send them in another field, and no content if there is only thought.
        text = choice.message.content if hasattr(choice, "message") else choice.text
        return Answer(text or "", choice.finish_reason == "stop")
    except (AttributeError, TypeError, IndexError):
        return None

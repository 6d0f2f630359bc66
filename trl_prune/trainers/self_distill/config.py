"""Arguments of the self-data distillation trainer."""

from dataclasses import dataclass, field

from trl import SFTConfig

from trl_prune.data.generation.engines import check_engine
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.rewriting.acceptance import CUT_THOUGHTS, KEEP_THOUGHTS, Accepting
from trl_prune.data.rewriting.answer_types import AUTO, all_answer_types, check_answer_type
from trl_prune.data.rewriting.requests import Asking
from trl_prune.data.rewriting.rewrite import RewriteSettings


@dataclass
class SelfDistillSFTConfig(SFTConfig):
    """Configuration class for the [`SelfDistillSFTTrainer`].

    All arguments of [`~trl.SFTConfig`] keep their meaning; those below configure how the dense model rewrites the
    answers.
    """

    _VALID_DICT_FIELDS = [
        *SFTConfig._VALID_DICT_FIELDS,
        "teacher_model_init_kwargs",
        "rewrite_engine_kwargs",
        "rewrite_answer_types",
        "rewrite_chat_template_kwargs",
    ]

    freeze_shared_blocks: bool = field(
        default=False,
        metadata={
            "help": "Whether blocks below the first cut, which are the dense model's own, and the embeddings stay "
            "frozen. No gradient passes them."
        },
    )
    rewrite: bool | str = field(
        default=True,
        metadata={
            "help": "Whether the dense model rewrites the answers before training. `True` rewrites the rows that have "
            "answers (prompt-completion, messages, text with `rewrite_response_template`) and trains on others as "
            "they are, with a warning; `'require'` refuses others; `False` is plain SFT."
        },
    )
    teacher_model_init_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "Keyword arguments for `from_pretrained` of a teacher given by name (dtype, device_map, ...)."
        },
    )
    rewrite_max_new_tokens: int = field(
        default=256,
        metadata={
            "help": "Maximum length of a rewritten answer in tokens; a longer one is truncated, and its row keeps the "
            "reference."
        },
    )
    rewrite_batch_size: int = field(default=32, metadata={"help": "Prompts per generation batch on each process."})
    rewrite_temperature: float = field(default=0.0, metadata={"help": "Sampling temperature; 0 is greedy decoding."})
    rewrite_samples: int = field(
        default=1, metadata={"help": "Answers generated at most for each reference; the first accepted one is used."}
    )
    rewrite_engine: str = field(
        default="transformers",
        metadata={"help": "What generates: `transformers`, `vllm`, or `server` (OpenAI-compatible)."},
    )
    rewrite_engine_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "The engine's arguments: `url`, `model`, `endpoint`, `concurrency`, ... of a server; those of "
            "`vllm.LLM`; `continuous` (batching) of transformers."
        },
    )
    rewrite_answer_type: str = field(
        default="auto",
        metadata={
            "help": "Answer type of rows whose `answer_type` column names none; `auto` goes by the reference answer."
        },
    )
    rewrite_answer_types: dict | str | None = field(
        default=None, metadata={"help": "Answer types of your own, in the form of the shipped `answer_types.yaml`."}
    )
    rewrite_response_template: str | None = field(
        default=None,
        metadata={"help": "What stands between prompt and answer in rows of text, such as `### Response:`."},
    )
    rewrite_chat_template_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "Variables of the teacher's chat template, such as `enable_thinking`; a row's own "
            "`chat_template_kwargs` column, which also determines training, goes first."
        },
    )
    rewrite_thoughts: str = field(
        default="cut",
        metadata={
            "help": "Whether a reasoning teacher's thoughts are `cut` from its answers, or `keep` to train on them."
        },
    )
    rewrite_train_prompts: bool = field(
        default=False,
        metadata={"help": "Whether training prompts become those of the answer types that have one."},
    )
    rewrite_run_tests: bool = field(
        default=False,
        metadata={"help": "Whether rewritten code is run, with the tests in its row's `tests` column."},
    )
    rewrite_cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the generated answers, saved batch by batch, so that an interrupted run resumes from "
            "the last saved batch; the same for all processes. Defaults to `rewrites` inside `output_dir`."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.rewrite not in (True, False, "require"):
            raise ValueError(f"`rewrite` is {self.rewrite!r}; allowed: True, False, 'require'")
        self._check_types()
        self._check_numbers()
        if self.rewrite_thoughts not in (CUT_THOUGHTS, KEEP_THOUGHTS):
            raise ValueError(
                f"`rewrite_thoughts` is {self.rewrite_thoughts!r}; allowed: {CUT_THOUGHTS!r}, {KEEP_THOUGHTS!r}"
            )
        check_engine(self.rewrite_engine, self.rewrite_engine_kwargs or {}, "`rewrite_engine_kwargs`")

    def _check_types(self) -> None:
        for name in ("rewrite_answer_types", "rewrite_engine_kwargs", "rewrite_chat_template_kwargs"):
            if not isinstance(getattr(self, name), dict | None):
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; it must be a dict, or JSON of one")

    def _check_numbers(self) -> None:
        least = {"rewrite_max_new_tokens": 1, "rewrite_batch_size": 1, "rewrite_samples": 1, "rewrite_temperature": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least {bound}")
        if self.rewrite_samples > 1 and self.rewrite_temperature == 0:
            raise ValueError(
                f"`rewrite_samples` is {self.rewrite_samples}, but at `rewrite_temperature=0` all are the same"
            )

    def rewrite_settings(self, max_model_len: int | None) -> RewriteSettings:
        """Return the settings of rewriting, given the teacher's longest context in tokens."""
        types = all_answer_types(self.rewrite_answer_types or {}, "rewrite_answer_types")
        check_answer_type(self.rewrite_answer_type, [AUTO, *types], "`rewrite_answer_type`")
        return RewriteSettings(
            Sampling(self.rewrite_max_new_tokens, self.rewrite_batch_size, self.rewrite_temperature, self.seed),
            self.rewrite_samples,
            Asking(
                self.rewrite_answer_type,
                types,
                response_template=self.rewrite_response_template,
                chat_template_kwargs=self.rewrite_chat_template_kwargs or {},
            ),
            Accepting(self.rewrite_thoughts, self.rewrite_run_tests),
            max_model_len,
            self.rewrite_train_prompts,
            self.rewrite == "require",
        )

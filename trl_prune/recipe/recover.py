"""One arm of the `recover` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from trl_prune.errors import shown
from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Count, Section, Share


# How far from 1 the shares of a mix may sum to.
SHARE_TOLERANCE = 1e-6
# Which form of `data` an error is about; `recipe.messages` leaves these out of keys.
ONE_SOURCE, MIX = "<one source>", "<mix>"
# What an arm may start from besides another arm: the pruned model, and baselines.
PRUNED, RANDOM_UNITS, RANDOM_WEIGHTS = "pruned", "random_units", "random_weights"
BASELINES = (RANDOM_UNITS, RANDOM_WEIGHTS)
SourceName = Literal["references", "rewritten", "text"]


def args_budgets(args: dict[str, object]) -> list[str]:
    """Return the keys of an arm's `args` that set how long it trains."""
    max_steps = args.get("max_steps")
    limited = isinstance(max_steps, int) and max_steps > 0  # -1 is TRL's word for no limit
    return ["args.max_steps"] * limited + ["args.num_train_epochs"] * ("num_train_epochs" in args)


class SourceSection(Section):
    """One source of a mix."""

    other_names: ClassVar[dict[str, str]] = {
        "data": "source", "fraction": "share", "name": "source", "path": "dataset.path", "proportion": "share",
        "ratio": "share", "rows": "dataset.rows", "type": "source", "weight": "share",
    }  # fmt: skip
    optional: ClassVar[tuple[str, ...]] = ("rows_per_text",)

    source: SourceName
    """The answers of a dataset, those the dense model wrote, or rows as text with a loss on every token."""
    share: Share
    """Share of the mix's rows, before texts are made of several."""
    dataset: DatasetSection | None = None
    """The rows of `references` or `text`; the recipe's own dataset if left out."""
    rows_per_text: Count = 1
    """For `text`: rows of a training text. Several are plain text, as `score.rows_per_text` has them."""

    @model_validator(mode="after")
    def _check_rows_per_text(self) -> "SourceSection":
        if self.rows_per_text > 1 and self.source != "text":
            raise ValueError(f"has `rows_per_text`, which is for `source: text`, and `source: {self.source}`")
        return self

    @property
    def label(self) -> str:
        """What messages and reports call the source."""
        label = self.source if self.dataset is None else f"{self.source} of {self.dataset.path}"
        return label + f", {self.rows_per_text} rows in a text" * (self.rows_per_text > 1)


class SweepSection(Section):
    """An arm for each of several values."""

    rows: Annotated[list[Count], Field(min_length=1)]
    """Numbers of training rows; the smaller sets are subsets of the larger."""


class ArmSection(Section):
    """One way to recover the pruned model."""

    other_names: ClassVar[dict[str, str]] = {
        "dataset": "data", "from": "init", "limit": "rows", "lora": "peft", "max_samples": "rows",
        "max_tokens": "tokens", "mix": "data", "num_samples": "rows", "peft_config": "peft", "samples": "rows",
        "sources": "data", "start": "init", "time": "minutes", "training_args": "args",
        "validation_rows": "validation",
    }  # fmt: skip
    optional: ClassVar[tuple[str, ...]] = ("minutes", "rows", "selection", "sweep", "validation")

    method: Literal["sft", "kd", "local_kd", "auto"] = "sft"
    """Supervised fine-tuning on the arm's data, distillation of the dense model's distribution over it, or of its
    states by the blocks next to the cuts alone; `auto` stands for what docs/recovery.md found best, where the arm does
    not say otherwise."""
    data: Annotated[
        Annotated[SourceName, Tag(ONE_SOURCE)] | Annotated[list[SourceSection], Tag(MIX)],
        Discriminator(lambda value: MIX if isinstance(value, list) else ONE_SOURCE),
    ] = "rewritten"
    """The dataset's own answers, those the dense model wrote, or the rows as text with a loss on every token; or a
    list of such sources with their shares of the rows."""
    rows: Count | None = None
    """Number of training rows, drawn with the recipe's seed; all if left out, or as many as a mix allows."""
    selection: str | None = None
    """Which selection of the dataset's rows, by name or method; the `select` section's own if left out."""
    sweep: SweepSection | None = None
    """Train the arm once for each number of rows, as the arms `ARM-250`, `ARM-500`, ..."""
    init: str = PRUNED
    """Initial weights: the pruned model's (`pruned`), or those of an arm that comes before this one; or as baselines,
    a cut of the same sizes with units drawn at random (`random_units`), or the pruned model's shape with freshly
    initialised weights (`random_weights`)."""
    teacher_cache: bool | None = None
    """For `kd`: read the teacher from what `cache_teacher` wrote; if left out, where the recipe has that section."""
    tokens: Count | None = None
    """Training budget in tokens without padding, over as many epochs as needed; if left out, `args` decides."""
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Training budget in minutes: the tokens that fit, by the time of the first steps on this machine."""
    validation: Count | None = None
    """Number of the rows that are not trained on but measured seven times, for what more tokens would bring;
    `local_kd` leaves them to the arms that go on from it."""
    args: dict[str, object] = Field(default_factory=dict)
    """Arguments of TRL's SFTConfig, passed through; for `kd`, of KDConfig; for `local_kd`, of LocalKDConfig."""
    peft: dict[str, object] | None = None
    """Arguments of peft's LoraConfig (`target_modules` defaults to `all-linear`), or all weights are trained."""

    @field_validator("data")
    @classmethod
    def _check_mix(cls, data: str | list[SourceSection]) -> str | list[SourceSection]:
        if isinstance(data, str):
            return data
        total = sum(source.share for source in data)
        if abs(total - 1) > SHARE_TOLERANCE:
            raise ValueError(f"has shares that sum to {total:.6g}; wanted: shares of the rows that sum to 1")
        for source in data:
            if source.source == "rewritten" and source.dataset is not None:
                raise ValueError(
                    f"has the source `rewritten` with the dataset {shown(source.dataset.path)}; only the recipe's own "
                    "dataset is rewritten: leave it out"
                )
        return data

    @model_validator(mode="after")
    def _check_rows(self) -> "ArmSection":
        if self.rows is not None and self.sweep is not None:
            raise ValueError("has both `rows` and `sweep`; the sweep sets the number of rows")
        if self.is_mix and "completion_only_loss" in self.args:
            raise ValueError(
                "has `args.completion_only_loss` and a mix, whose sources say which tokens the loss is on; leave it "
                "out"
            )
        return self

    @model_validator(mode="after")
    def _check_minutes(self) -> "ArmSection":
        if self.minutes is None:
            return self
        others = ["tokens"] * (self.tokens is not None) + args_budgets(self.args)
        if others:
            raise ValueError(f"has `minutes` and `{others[0]}`, which are two budgets; keep one")
        if self.args.get("lmbda"):
            raise ValueError(
                "has `minutes` and `args.lmbda`, with which answers grow longer, so that the first steps do not tell "
                "the time of the others; give `tokens`"
            )
        return self

    @model_validator(mode="after")
    def _check_validation(self) -> "ArmSection":
        if self.validation is not None and self.rows is not None and self.validation >= self.rows:
            raise ValueError(f"has {self.validation} rows for `validation` of its {self.rows} `rows`; train on some")
        loss, smoothing = self.args.get("loss_type", "nll"), self.args.get("label_smoothing_factor")
        if self.validation is not None and self.method == "sft" and (loss != "nll" or smoothing):
            other = f"loss_type: {loss}" if loss != "nll" else f"label_smoothing_factor: {smoothing}"
            raise ValueError(f"has `validation`, which measures the cross-entropy, and `args.{other}`; keep one")
        return self

    @property
    def has_teacher(self) -> bool:
        """Whether the arm learns from the dense model while it trains."""
        return self.method != "sft"

    @property
    def starts_from_arm(self) -> bool:
        """Whether the arm goes on from what another one trained."""
        return self.init not in (PRUNED, *BASELINES)

    def held_out_by(self, seed: int) -> tuple:
        """Return what determines which rows the arm does not train on; the source of one dataset's answers does not.

        Args:
            seed: the recipe's.
        """
        data = self.data if self.is_mix else self.sources[0].dataset
        own = self.args.get("seed", seed), self.args.get("max_length")
        return data, self.rows, self.selection, self.validation, *own

    @property
    def is_mix(self) -> bool:
        """Whether the arm trains on a mix of sources."""
        return not isinstance(self.data, str)

    @property
    def sources(self) -> list[SourceSection]:
        """The sources of the arm's rows."""
        return self.data if self.is_mix else [SourceSection(source=self.data, share=1.0)]

    @property
    def uses_rewritten(self) -> bool:
        """Whether the arm trains on answers that the dense model wrote."""
        return any(source.source == "rewritten" for source in self.sources)

    @property
    def data_label(self) -> str:
        """What messages and reports call the arm's data."""
        if not self.is_mix:
            return self.data
        return " + ".join(f"{100 * source.share:.3g} % {source.label}" for source in self.data)


def expand_sweeps(arms: dict[str, ArmSection]) -> dict[str, ArmSection]:
    """Return the arms with each one that has a `sweep` replaced by an arm for each of its values.

    Raises:
        ValueError: two arms have one name.
    """
    expanded: dict[str, ArmSection] = {}
    for name, arm in arms.items():
        copies = {name: arm}
        if arm.sweep is not None:
            copies = {
                f"{name}-{rows}": arm.model_copy(update={"rows": rows, "sweep": None}) for rows in arm.sweep.rows
            }
            if len(copies) < len(arm.sweep.rows):
                raise ValueError(f"has a number twice in {name}.sweep.rows: {arm.sweep.rows}")
        clash = next((copy for copy in copies if copy in expanded or (copy in arms and copy != name)), None)
        if clash is not None:
            raise ValueError(f"has the arm {shown(clash)} twice, one of them from a sweep; rename one")
        expanded |= copies
    return expanded

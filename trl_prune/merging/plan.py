"""A merge as runs of mergekit: one, or a chain of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from trl_prune.merging.fit import check_distinct
from trl_prune.merging.inputs import find_model, is_adapter, stored_dtype, unadapted
from trl_prune.merging.recipes import MergeRecipe, write_config


@dataclass(frozen=True)
class MergePlan:
    """Which models are merged, how.

    Attributes:
        recipe: the merge recipe.
        models: absolute folders of models or LoRA adapters.
        base: the absolute folder of the model that all were trained from; None where the recipe takes none.
        parameters: the parameters that are given.
        seed: seed of methods that draw, and of the draw of tensors that are checked.
    """

    recipe: MergeRecipe
    models: tuple[Path, ...]
    base: Path | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def of(
        cls,
        recipe: str,
        models: Sequence[str | Path],
        base: str | Path | None,
        parameters: Mapping[str, object],
        seed: int = 0,
    ) -> "MergePlan":
        """Return a plan, after checking everything that can be checked without reading weights.

        Args:
            recipe: a shipped recipe's name or the path of a YAML.
            models: paths or hub ids of models, or paths of LoRA adapters.
            base: the model that all were trained from, likewise.
            parameters: the recipe's parameters.
            seed: seed of methods that draw.

        Raises:
            InputError: the recipe does not exist, does not fit the models or parameters, or a model does not exist or
                is given twice.
        """
        loaded = MergeRecipe.load(recipe)
        loaded.check(len(models), base is not None, parameters)
        folders = tuple(find_model(model) for model in models)
        check_distinct(folders)
        return cls(loaded, folders, None if base is None else find_model(base), dict(parameters), seed)

    @property
    def folders(self) -> list[Path]:
        """The models and the base, last."""
        return [*self.models, *([] if self.base is None else [self.base])]

    @property
    def searched(self) -> str | None:
        """The parameter that a search changes, `t` or `weight`; None where there is neither."""
        return self.recipe.searched(len(self.models))

    def steps(
        self, models: Sequence[Path], base: Path | None, dtype: str, between: Path
    ) -> list[tuple[dict[str, object], list[Path]]]:
        """Return mergekit's configurations in order, each with the models that it merges.

        A chain merges the first two models, then its result with the next, with t = 1/2, 1/3, ...; the result of step
        1, 2, ... but the last is expected as `step-1`, `step-2`, ... in a folder.

        Args:
            models: the models' folders, with full weights.
            base: the base's folder, with full weights.
            dtype: the dtype of the merged weights.
            between: the folder of the results between steps.
        """
        if not self.recipe.chains or len(models) == self.recipe.num_models:
            return [(self.recipe.fill(models, base, dtype, self.parameters), list(models))]
        found = []
        for step, model in enumerate(models[1:], start=1):
            pair = [models[0] if step == 1 else between / f"step-{step - 1}", model]
            found.append((self.recipe.fill(pair, base, dtype, {"t": 1 / (step + 1)}), pair))
        return found

    def to_yaml(self) -> str:
        """Return the merge as a YAML for mergekit's own command, which its first line names.

        A chain is for `mergekit-multi`, with a document for each step.
        """
        dtype = stored_dtype(unadapted(self.models[0]))
        steps = [config for config, _ in self.steps(self.models, self.base, dtype, Path())]
        adapters = " --lora-merge-cache CACHE" * any(map(is_adapter, self.folders))
        options = f"--no-write-model-card --lazy-unpickle --random-seed {self.seed}{adapters}"
        if len(steps) == 1:
            return f"# mergekit-yaml FILE OUT {options}\n{write_config(steps[0])}"
        names = [{"name": f"step-{number}"} for number in range(1, len(steps))] + [{}]
        documents = [yaml.safe_dump(name | config, sort_keys=False) for name, config in zip(names, steps, strict=True)]
        return f"# mergekit-multi FILE -I BETWEEN --out-path OUT {options}\n" + "---\n".join(documents)

    def record(self) -> dict[str, object]:
        """Return what the provenance of the merged model says."""
        is_chain = self.recipe.chains and len(self.models) > self.recipe.num_models
        names = [] if is_chain else self.recipe.parameters
        values = {name: self.recipe.value(name, self.parameters) for name in names}
        base = {} if self.base is None else {"base": str(self.base)}
        return {
            "recipe": self.recipe.name,
            "method": self.recipe.method,
            "models": [str(model) for model in self.models],
            **base,
            "parameters": values,
            "seed": self.seed,
        }

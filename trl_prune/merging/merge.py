"""Merge checkpoints into one that is proven whole before it appears."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trl_prune.checkpoints import DamagedCheckpointError, atomic_folder, load_config, write_json, write_text
from trl_prune.errors import InputError, first_line
from trl_prune.merging.arithmetic import Merged, verify_arithmetic
from trl_prune.merging.fit import check_fit
from trl_prune.merging.inputs import stored_dtype, unadapted, with_full_weights
from trl_prune.merging.mergekit_run import check_mergeable, run_mergekit
from trl_prune.merging.plan import MergePlan
from trl_prune.merging.proof import complete, record_merge, verify_equal, verify_whole
from trl_prune.merging.search import WeightSearch, model_alone
from trl_prune.merging.tensors import lerped


# Beside the weights: what was merged and proven, and the merge as YAML for mergekit's own command.
RECORD, CONFIG = "merge.json", "mergekit_config.yml"


def check_models(plan: MergePlan) -> None:
    """Check that a plan's models fit together, reading headers and tokenizers only.

    Raises:
        InputError: they differ in architecture, shape, kept units or tokenizer, or are quantised.
    """
    check_folders(plan.folders)


def check_folders(folders: Sequence[Path]) -> list[Path]:
    """Check that models or adapters fit together, as `check_models` does; return where their configs are."""
    found = [unadapted(folder) for folder in folders]
    for folder in found:
        stored_dtype(folder)
    check_fit(found)
    check_mergeable(found[0])
    return found


def merge_models(
    plan: MergePlan, target: Path, search: WeightSearch | None = None, prove_ends: bool = True
) -> dict[str, object]:
    """Merge models and write the checkpoint, which appears only once it is proven whole.

    Proven are every tensor's name and shape against the config, the config's lists per block, that weights and logits
    are finite, some tensors against the method's formula (`verify_arithmetic`), and for two models merged by `t` alone
    that t = 0 and t = 1 have the models' logits.

    Args:
        plan: what is merged, how.
        target: the checkpoint's folder; a hidden folder beside it holds adapters' models and candidates meanwhile.
        search: how t or the weights are chosen; None for those of the plan.
        prove_ends: whether to merge twice more, at t = 0 and t = 1, for that proof.

    Returns:
        What `merge.json` holds: the merge (`MergePlan.record`); of slerp `lerp`, the tensors that were interpolated
        linearly because their cosine is above 0.9995, and the number of all; `proof`; of a search, `search`.

    Raises:
        InputError: the models do not fit together, mergekit refuses them, or what it made of them could not be proven.
    """
    check_models(plan)
    scratch = target.with_name(f".{target.name}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        return _Merge(plan, _with_full_weights(plan, scratch), scratch, prove_ends).write(target, search)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _with_full_weights(plan: MergePlan, scratch: Path) -> MergePlan:
    models = [with_full_weights(model, scratch / f"model-{index + 1}") for index, model in enumerate(plan.models)]
    base = None if plan.base is None else with_full_weights(plan.base, scratch / "base")
    return replace(plan, models=tuple(models), base=base)


class _Merge:
    """One merge: its plan as it was given, and with full weights in place of adapters."""

    def __init__(self, given: MergePlan, plan: MergePlan, scratch: Path, prove_ends: bool):
        self.given, self.plan, self.scratch, self.prove_ends = given, plan, scratch, prove_ends
        self.dtype = stored_dtype(plan.models[0])

    def write(self, target: Path, search: WeightSearch | None) -> dict[str, object]:
        found = None if search is None else search.run(self.plan, self._candidate)
        plan = self.plan if found is None else found.plan
        with atomic_folder(target) as part:
            merges = self._merge(plan, part)
            done = replace(plan, models=self.given.models, base=self.given.base if plan.base else None)
            record = done.record() | self._lerp(merges) | {"proof": self._proof(plan, merges)}
            if found is not None:
                record["search"] = self._named(found.record)
                if found.record["kept"]:
                    verify_equal(part, Path(found.record["kept"]), self.dtype)
            record_merge(part, plan.models[0], done.record())
            write_json(part / RECORD, record)
            write_text(part / CONFIG, done.to_yaml())
        return record

    def _merge(self, plan: MergePlan, target: Path) -> list[Merged]:
        """Run mergekit, once or in a chain; the last merge becomes a checkpoint in the target."""
        merges = []
        steps = plan.steps(plan.models, plan.base, self.dtype, self.scratch)
        for step, (config, models) in enumerate(steps, start=1):
            folder = target if step == len(steps) else self.scratch / f"step-{step}"
            run_mergekit(config, folder, plan.seed)
            complete(folder, plan.models[0])
            merges.append(Merged(folder, config, models, plan.base))
        return merges

    def _candidate(self, plan: MergePlan) -> Path:
        folder = self.scratch / "candidate"
        shutil.rmtree(folder, ignore_errors=True)
        self._merge(plan, folder)
        return folder

    def _lerp(self, merges: list[Merged]) -> dict[str, object]:
        if merges[0].method != "slerp":
            return {}
        found = [lerped(*merge.models) for merge in merges]
        names = [name for linear, _ in found for name in linear]
        return {"lerp": {"count": len(names), "of": sum(count for _, count in found), "names": names}}

    def _proof(self, plan: MergePlan, merges: list[Merged]) -> dict[str, object]:
        try:
            verify_whole(merges[-1].folder, self.dtype)
            arithmetic = [verify_arithmetic(merge, plan.seed) for merge in merges]
            ends = self._prove_ends(plan) if self.prove_ends else []
        except DamagedCheckpointError as error:
            kind = load_config(self.plan.models[0]).model_type
            raise InputError(f"mergekit did not merge models of type {kind} rightly: {first_line(error)}") from error
        return {"tensors": arithmetic, "equal_logits": ends}

    def _prove_ends(self, plan: MergePlan) -> list[str]:
        """Check that the merges at t = 0 and t = 1 are the models, and return what was checked."""
        if plan.searched != "t":
            return []
        for index, model in enumerate(plan.models):
            verify_equal(self._candidate(model_alone(plan, index)), model, self.dtype)
        return ["t=0", "t=1"]

    def _named(self, record: dict[str, object]) -> dict[str, object]:
        """Return a search's record with adapters under their own names, not those of their copies."""
        names = {str(full): str(given) for full, given in zip(self.plan.models, self.given.models, strict=True)}
        best = record["best_model"] | {"model": names[record["best_model"]["model"]]}
        curve = [entry | {"model": names[entry["model"]]} if "model" in entry else entry for entry in record["curve"]]
        return record | {"best_model": best, "curve": curve, "kept": names.get(record["kept"])}

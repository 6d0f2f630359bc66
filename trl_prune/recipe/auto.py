"""What `recover: auto` and an arm's `method: auto` stand for: what was best where ways of recovery were compared.

docs/recovery.md has the comparison. Whatever the recipe says goes first.
"""

from trl_prune.recipe.dataset import SYNTHESIZED


AUTO = "auto"
# The arm of `recover: auto`.
AUTO_ARM = "recovered"
# The budget of an arm that names none.
MINUTES = 20
# An arm's keys that are a budget, and those of its `args`.
BUDGETS, BUDGET_ARGS = ("minutes", "tokens"), ("max_steps", "num_train_epochs")
METHOD = "kd"
ARGS = {"learning_rate": 2e-4, "lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 0.05}


def with_auto_arm(values: dict) -> dict:
    """Return a recipe's values with the arm that `recover: auto` is, so that overrides can change it."""
    return values | {"recover": {AUTO_ARM: {"method": AUTO}}} if values.get("recover") == AUTO else values


def with_auto(values: object) -> object:
    """Return a recipe's values with `auto` replaced by what it stands for; values of other types as they are."""
    if not isinstance(values, dict):
        return values
    arms = with_auto_arm(values).get("recover")
    if not isinstance(arms, dict) or not any(map(_is_auto, arms.values())):
        return values
    # The answers of rows that the dense model writes are its own already.
    data = "references" if _is_synthesized(values.get("dataset")) else "rewritten"
    resolved = {name: _resolved(arm, data) if _is_auto(arm) else arm for name, arm in arms.items()}
    rewrite = {"rewrite": {}} if values.get("rewrite") is None and data == "rewritten" else {}
    return values | rewrite | _with_blocks(values.get("prune")) | {"recover": resolved}


def _is_auto(arm: object) -> bool:
    return isinstance(arm, dict) and arm.get("method") == AUTO


def _with_blocks(prune: object) -> dict[str, object]:
    """Return a `prune` section that says how blocks are chosen, if it leaves that open."""
    chooses = isinstance(prune, dict) and prune.get("keep") is None and "by" not in prune
    return {"prune": {"by": AUTO} | prune} if chooses else {}


def _is_synthesized(dataset: object) -> bool:
    return isinstance(dataset, dict) and ("synthesize" in dataset or dataset.get("path") == SYNTHESIZED)


def _resolved(arm: dict, data: str) -> dict:
    args = arm.get("args") or {}
    if not isinstance(args, dict):
        return arm | {"method": METHOD}  # refused where the arm is validated
    has_budget = any(arm.get(key) is not None for key in BUDGETS) or any(key in args for key in BUDGET_ARGS)
    budget = {} if has_budget else {"minutes": MINUTES}
    return {"data": data} | budget | arm | {"method": METHOD, "args": ARGS | args}

"""What `recover: auto` and an arm's `method: auto` stand for: what was best where ways of recovery were compared.

docs/recovery.md has the comparison. Whatever the recipe says goes first.
"""

from trl_prune.recipe.recover import args_budgets
from trl_prune.recipe.score import GENERATED


AUTO = "auto"
# The arms of `recover: auto`: the blocks next to the cuts are repaired first, where blocks alone are removed.
REPAIRED_ARM, AUTO_ARM = "repaired", "recovered"
# The budget of an arm that names none, and that of the repair before it.
MINUTES, REPAIR_MINUTES = 20, 10
# An arm's keys that are a budget, besides those of its `args`.
BUDGETS = ("minutes", "tokens")
# Tokens from which the dense model's distribution is distilled from the pruned model on. In a short training (33,000
# tokens, or as many as take as long) fine-tuning was better; 2407.14679 finds distillation far better, in trainings of
# 1.8 billion and more. Behind a repair distillation was better in a short training too.
DISTILLED_FROM = 1_000_000_000
# Rows that tell what more tokens would bring; measuring them takes some 7 % of 20 minutes on a CPU.
VALIDATION = 16
PEFT = {"r": 64, "lora_alpha": 128}
SCHEDULE = {"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 0.05}
# Which blocks: the run of neighbours that is missed least behind the repair, on rows as they are and on rows one after
# the other, as a prompt with examples has them.
CALIBRATION = {"rows_per_text": [1, 8]}
BLOCKS = {"by": "kl", "strategy": "contiguous", "as_repaired": AUTO, "texts": 32}
# The rate depends on the model's size (`runs.arms.chosen_rate`).
ARGS = {"learning_rate": AUTO} | SCHEDULE


def with_auto_arms(values: dict) -> dict:
    """Return a recipe's values with the arms that `recover: auto` is, so that overrides can change them."""
    if values.get("recover") != AUTO:
        return values
    if not _removes_blocks_alone(values.get("prune")):
        return values | {"recover": {AUTO_ARM: {"method": AUTO}}}
    repaired = {"method": "local_kd", "data": "text", "minutes": REPAIR_MINUTES, "validation": VALIDATION}
    recovered = {"method": AUTO, "init": REPAIRED_ARM, "minutes": MINUTES - REPAIR_MINUTES}
    return values | {"recover": {REPAIRED_ARM: repaired | {"args": ARGS}, AUTO_ARM: recovered}}


def _removes_blocks_alone(prune: object) -> bool:
    """Return whether a `prune` section is known to cut nothing but blocks."""
    if not isinstance(prune, dict) or prune.get("by") == "search":
        return False
    target, keep = prune.get("target"), prune.get("keep")
    sizes = target if isinstance(target, dict) else keep
    return isinstance(sizes, dict) and set(sizes) <= {"layers", "num_hidden_layers"}


def with_auto(values: object) -> object:
    """Return a recipe's values with `auto` replaced by what it stands for; values of other types as they are."""
    if not isinstance(values, dict):
        return values
    values = with_auto_arms(values)
    arms = values.get("recover")
    if not isinstance(arms, dict) or not any(map(_is_auto, arms.values())):
        return values
    # Rewriting may take longer than the training, so it is the recipe that asks for it.
    data = "references" if values.get("rewrite") is None else "rewritten"
    resolved = {name: _resolved(arm, data) for name, arm in arms.items() if _is_auto(arm)}
    blocks = _with_blocks(values) if AUTO_ARM in resolved else {}
    return values | blocks | {"recover": arms | resolved}


def _is_auto(arm: object) -> bool:
    return isinstance(arm, dict) and arm.get("method") == AUTO


def _with_blocks(values: dict) -> dict[str, object]:
    """Return the sections that say how blocks are chosen, and on what texts, as far as the recipe leaves them open."""
    prune = values.get("prune")
    if not isinstance(prune, dict) or prune.get("keep") is not None or "by" in prune:
        return {}
    if not _removes_blocks_alone(prune) or prune.get("rounds", 1) != 1:
        return {"prune": {"by": AUTO} | prune}
    score = {} if values.get("score") is None else values["score"]
    reads_rows = isinstance(score, dict) and score.get("dataset") != GENERATED
    return {"prune": BLOCKS | prune} | ({"score": CALIBRATION | score} if reads_rows else {})


def _resolved(arm: dict, data: str) -> dict:
    args, tokens = arm.get("args", {}), arm.get("tokens")
    goes_on = arm.get("init") == REPAIRED_ARM
    method = "kd" if goes_on or (isinstance(tokens, int) and tokens >= DISTILLED_FROM) else "sft"
    if goes_on and data == "references":
        data = "text"
    if not isinstance(args, dict):
        return {"data": data} | arm | {"method": method}  # refused where the arm is validated
    has_budget = any(arm.get(key) is not None for key in BUDGETS) or args_budgets(args)
    budget = {} if has_budget else {"minutes": MINUTES}
    own = {"data": data, "validation": VALIDATION, "peft": PEFT} | budget | arm
    return own | {"method": method, "args": ARGS | args}

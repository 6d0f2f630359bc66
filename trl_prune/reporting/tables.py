"""The tables of the report; each is rendered by its two templates in `templates/`, for HTML and for Markdown."""

from trl_prune.runs.stage import Panel


RECOVERY_TABLE = Panel("recovery_table", lambda results: results.groups)
COMPARISON_TABLE = Panel("comparison_table", lambda results: results.compared)
FLIPS = Panel("flips", lambda results: results.compared)
SCORE_TABLE = Panel("score_table", lambda results: results.scores.get("dense"))
SIZE_TABLE = Panel("size_table", lambda results: results.sizes)
FIDELITY_TABLE = Panel("fidelity_table", lambda results: results.fidelity)
FORGETTING_TABLE = Panel("forgetting_table", lambda results: results.forgetting)
OPEN_ANSWERS = Panel("open_answers", lambda results: results.answers)
REWRITTEN_ANSWERS = Panel("rewritten_answers", lambda results: results.rewriting_examples)
ARM_TABLE = Panel("arm_table", lambda results: results.arms)
SELECTION_TABLE = Panel("selection_table", lambda results: results.selection)

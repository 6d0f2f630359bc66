"""A clear sentence where TRL moves a name that the package depends on."""

import inspect

import trl
from trl import SFTConfig, SFTTrainer


def test_private_names_are_where_they_are_imported_from():
    try:
        from trl_prune.trainers import trl_names
    except ImportError as error:
        raise AssertionError(
            f"TRL {trl.__version__} moved a private name; update trainers/trl_names.py: {error}"
        ) from error
    assert trl_names.__all__


def test_the_first_arguments_of_sft_trainer_are_those_our_trainers_name():
    names = list(inspect.signature(SFTTrainer.__init__).parameters)[:5]
    assert names == ["self", "model", "args", "data_collator", "train_dataset"], (
        f"TRL {trl.__version__} changed SFTTrainer's first arguments; update the constructors of KDTrainer and "
        "SelfDistillSFTTrainer"
    )


def test_the_config_has_the_attribute_that_ours_extend():
    assert hasattr(SFTConfig, "_VALID_DICT_FIELDS"), "TRL renamed SFTConfig._VALID_DICT_FIELDS"


def test_the_trainer_counts_the_tokens_that_budgets_in_minutes_are_made_of():
    assert "self._total_train_tokens +=" in inspect.getsource(SFTTrainer), (
        f"TRL {trl.__version__} counts tokens elsewhere; update trainers/arms/time_budget.py"
    )

"""One clear sentence where TRL moves something we lean on."""

import inspect

import trl
from trl import SFTConfig, SFTTrainer


def test_private_names_are_where_we_import_them():
    try:
        from trl_prune.trainers import trl_names
    except ImportError as error:
        raise AssertionError(
            f"TRL {trl.__version__} moved a private name; mend trainers/trl_names.py: {error}"
        ) from error
    assert trl_names.__all__


def test_the_constructor_starts_as_we_forward_it():
    names = list(inspect.signature(SFTTrainer.__init__).parameters)[:5]
    assert names == ["self", "model", "args", "data_collator", "train_dataset"], (
        f"TRL {trl.__version__} changed SFTTrainer's first arguments; mend SelfDistillSFTTrainer.__init__"
    )


def test_the_config_has_what_we_extend():
    assert hasattr(SFTConfig, "_VALID_DICT_FIELDS"), "TRL renamed SFTConfig._VALID_DICT_FIELDS"

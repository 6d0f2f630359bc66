"""The one door to mergekit: a filled configuration becomes weights on disk."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from trl_prune.checkpoints import load_config
from trl_prune.errors import InputError, first_line
from trl_prune.merging.inputs import header_entries


# Bytes of an output shard: what mergekit keeps in memory beside the tensors that it merges.
SHARD_BYTES = 500_000_000


def run_mergekit(config: Mapping[str, object], target: Path, seed: int = 0) -> None:
    """Merge models with mergekit, without a network, a progress bar or a model card.

    Args:
        config: mergekit's configuration, with absolute paths.
        target: the folder to write. Of what mergekit writes only the weights are to be used: its config and tokenizer
            files may be stale.
        seed: seed of methods that draw.

    Raises:
        InputError: mergekit refuses the configuration or does not know the architecture.
    """
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    options = MergeOptions(
        lazy_unpickle=True,
        copy_tokenizer=False,
        quiet=True,
        write_model_card=False,
        out_shard_size=SHARD_BYTES,
        random_seed=seed,
    )
    target.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet():
            run_merge(MergeConfiguration.model_validate(config), str(target), options)
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise InputError(f"mergekit cannot merge by {config['merge_method']!r}: {first_line(error)}") from error
    finally:
        LoaderCache.loaders.clear()  # else a later merge of another model at a path of this one reads this one's


def check_mergeable(folder: Path) -> None:
    """Check that a model has the tensors that mergekit reads from one of its architecture.

    mergekit's lists of tensors do not know every variant, such as mixtures of experts with some dense blocks. An
    architecture without a list passes: its tensors are inferred during the merge, and the result is checked.

    Args:
        folder: the model, with a config.

    Raises:
        InputError: it lacks one.
    """
    from mergekit.architecture import arch_info_for_config
    from mergekit.architecture.conversion import can_convert_checkpoint_keys

    config, stored = load_config(folder), set(header_entries(folder))
    with _quiet():
        architecture = arch_info_for_config(config) if len(config.architectures or ()) == 1 else None
    for weight in [] if architecture is None else architecture.all_weights(config):
        names = (weight.name, *(weight.aliases or ()), *(weight.tied_names or ()))
        if not weight.optional and not any(can_convert_checkpoint_keys(config.model_type, stored, n) for n in names):
            raise InputError(
                f"mergekit reads the tensor {weight.name} from models of type {config.model_type}, and {folder} has "
                "none: such a model cannot be merged"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the warnings of mergekit and its calls: what they are about is checked afterwards.

    mergekit warns by its own loggers and by the root.
    """
    loggers = [logging.getLogger(name) for name in ("mergekit", "transformers", None)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""The one door to mergekit: a filled configuration becomes weights on disk."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from trl_prune.errors import InputError, first_line


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

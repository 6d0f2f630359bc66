"""Whether models can be merged: one architecture, one shape, the same units kept, one tokenizer."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from trl_prune.checkpoints import PROVENANCE, load_config, load_tokenizer, read_provenance
from trl_prune.errors import InputError
from trl_prune.merging.inputs import header_entries


# The output matrix, which a checkpoint with tied embeddings may store or not.
HEAD = "lm_head.weight"


def check_fit(folders: Sequence[Path]) -> None:
    """Check that models are of one architecture and shape, keep the same units, and share a tokenizer.

    Args:
        folders: the models, with a config each.

    Raises:
        InputError: two differ; the sentence has both values.
    """
    first, *others = folders
    for other in others:
        _check_architecture(first, other)
        _check_shapes(first, other)
        _check_keep(first, other)
        _check_tokenizers(first, other)


def check_planned(folder: Path, dense: Path, planned: PreTrainedModel) -> None:
    """Check that a model fits those that are yet to be trained from a pruned one.

    Args:
        folder: the model, with a config.
        dense: the dense model, whose architecture and tokenizer the pruned one has.
        planned: the pruned model, whose weights are not needed.

    Raises:
        InputError: it does not; the sentence has both values.
    """
    _check_architecture(folder, dense)
    _check_tokenizers(folder, dense)
    blocks = [config.get_text_config().num_hidden_layers for config in (load_config(folder), planned.config)]
    if blocks[0] != blocks[1]:
        raise InputError(
            f"{folder} has {blocks[0]} blocks and the pruned model {blocks[1]}; merges are of models of one shape"
        )
    entries = header_entries(folder)
    for name, parameter in planned.named_parameters():
        if name in entries and entries[name]["shape"] != list(parameter.shape):
            raise InputError(
                f"{folder} has {name} of shape {entries[name]['shape']} and the pruned model {list(parameter.shape)}; "
                "merges are of models of one shape"
            )
    if read_provenance(folder) is None:
        raise InputError(
            f"{folder} has no {PROVENANCE}, and the pruned model has one, so that they may keep different units; copy "
            "the file if both were trained from one pruned model"
        )


def check_distinct(models: Sequence[Path]) -> None:
    """Check that no model is named twice: mergekit would count it once.

    Raises:
        InputError: one is.
    """
    folder, count = Counter(path.resolve() for path in models).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"the model {folder} is given {count} times to one merge; name each once, with a larger weight"
        )


def _check_architecture(one: Path, other: Path) -> None:
    kinds = [(config.model_type, tuple(config.architectures or ())) for config in map(load_config, (one, other))]
    if kinds[0] != kinds[1]:
        words = [f"{model_type} ({', '.join(names) or 'no architecture'})" for model_type, names in kinds]
        raise InputError(f"{one} is of type {words[0]} and {other} of type {words[1]}; merges are of one architecture")


def _check_shapes(one: Path, other: Path) -> None:
    shapes = [{name: entry["shape"] for name, entry in header_entries(path).items()} for path in (one, other)]
    names = sorted(shapes[0].keys() ^ shapes[1].keys())
    if load_config(one).get_text_config().tie_word_embeddings:
        names = [name for name in names if name != HEAD]
    if names:
        holder, lacks = (one, other) if names[0] in shapes[0] else (other, one)
        raise InputError(f"{holder} has the tensor {names[0]} and {lacks} has not; merges are of models of one shape")
    for name in sorted(shapes[0].keys() & shapes[1].keys()):
        if shapes[0][name] != shapes[1][name]:
            raise InputError(
                f"{one} has {name} of shape {shapes[0][name]} and {other} of shape {shapes[1][name]}; merges are of "
                "models of one shape"
            )


def _check_keep(one: Path, other: Path) -> None:
    provenances = [read_provenance(path) for path in (one, other)]
    if (provenances[0] is None) != (provenances[1] is None):
        with_one, without = (one, other) if provenances[1] is None else (other, one)
        raise InputError(
            f"{with_one} has a {PROVENANCE} and {without} has none, so that they may keep different units; copy the "
            "file if both were trained from one pruned model"
        )
    if provenances[0] is None:
        return
    keeps = [provenance.keep for provenance in provenances]
    axis = next((axis for axis in sorted({*keeps[0], *keeps[1]}) if keeps[0].get(axis) != keeps[1].get(axis)), None)
    if axis is not None:
        raise InputError(
            f"{one} keeps the {axis} {keeps[0].get(axis, 'all')} and {other} {keeps[1].get(axis, 'all')}; merges are "
            "of models that keep the same units of the dense one"
        )


def _check_tokenizers(one: Path, other: Path) -> None:
    first, second = load_tokenizer(one).get_vocab(), load_tokenizer(other).get_vocab()
    if first == second:
        return
    token = min(token for token in first.keys() | second.keys() if first.get(token) != second.get(token))
    raise InputError(
        f"the tokenizers of {one} and {other} differ: {token!r} has the id {first.get(token)} and "
        f"{second.get(token)}, of {len(first):,} and {len(second):,} tokens; merges are of models with one tokenizer"
    )

"""How much memory and disk scoring needs, with the model in memory or one block of it."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from trl_prune.pruning.importance.hooks import decoder_blocks


@dataclass(frozen=True)
class ScoringNeeds:
    """Upper bounds in bytes, without the activations inside a block, which the slices of texts bound.

    Attributes:
        in_memory: memory for all weights.
        by_blocks: memory for the weights outside the blocks, one block twice (as stored and as converted) and the
            states of all texts.
        disk: what scoring by blocks stores meanwhile: the scored states before and after every block.
    """

    in_memory: int
    by_blocks: int
    disk: int


def scoring_needs(
    meta_model: PreTrainedModel, itemsize: int, texts: int, max_length: int, tokens: str
) -> ScoringNeeds:
    """Return what scoring a model needs.

    Args:
        meta_model: the model on the meta device.
        itemsize: bytes of a weight in memory.
        texts: number of calibration texts.
        max_length: their largest number of tokens.
        tokens: the positions that block distances are measured at, `all` or `last`.
    """
    blocks = decoder_blocks(meta_model)
    block_sizes = [sum(weight.numel() for weight in block.parameters()) for block in blocks]
    outside = sum(weight.numel() for weight in meta_model.get_decoder().parameters()) - sum(block_sizes)
    hidden_size = meta_model.config.get_text_config().hidden_size
    states = texts * max_length * hidden_size
    scored = states if tokens == "all" else texts * hidden_size
    return ScoringNeeds(
        in_memory=itemsize * sum(weight.numel() for weight in meta_model.parameters()),
        by_blocks=itemsize * (outside + 2 * max(block_sizes) + states),
        disk=itemsize * ((len(blocks) + 1) * scored + 2 * states),
    )

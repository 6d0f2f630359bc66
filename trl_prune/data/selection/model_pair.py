"""The dense and the pruned model at the answers of a batch: both in memory, or the dense one's states on disk."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.data.selection.row_batches import RowBatch
from trl_prune.data.shared_blocks import BlocksOf, backbone_states, count_shared_blocks, shared_states
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.encoding import PROBE_TOKENS, TOLERANCE
from trl_prune.data.teacher_cache.sequences import PreparedRow, row_keys
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead, lm_head
from trl_prune.losses.targets import HeadTarget


logger = logging.getLogger(__name__)
# Rounding of the same computation, in units of the dtype's precision, where a device does not repeat it exactly.
ROUNDING = 8


class Predictions(NamedTuple):
    """Final states at a batch's answers, `(positions, hidden_size)`, and heads, on one device.

    Attributes:
        dense: of the dense model; None where only the pruned one is scored.
        pruned: of the pruned model.
    """

    dense: HeadTarget | None
    pruned: HeadTarget

    def present(self) -> dict[str, HeadTarget]:
        """Return the predictions that there are, by the model's name."""
        return {name: part for name, part in self._asdict().items() if part is not None}


@dataclass(frozen=True)
class ScoredModel:
    """A loaded model.

    Attributes:
        model: the model, in eval mode.
        head: its LM head.
    """

    model: PreTrainedModel
    head: LMHead

    @classmethod
    def load(cls, name: str, teacher: LazyTeacher, probe: RowBatch) -> "ScoredModel":
        """Load a model and check, on the first tokens of a batch, that its logits are its head of its final states.

        Raises:
            InputError: they are not; the message contains the model's name, `dense` or `pruned`.
        """
        model = teacher.load().eval()
        scored = cls(model, lm_head(model))
        inputs = {key: tensor[:1, :PROBE_TOKENS].to(model.device) for key, tensor in probe.inputs.items()}
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits.to(scored.device)
            head_logits = scored.head.logits(backbone_states(model, inputs).to(scored.device))
        if (head_logits - logits).norm() > TOLERANCE * logits.norm():  # False of NaN, which is found with its row
            raise InputError(
                f"the logits of the {name} model (type {model.config.model_type!r}) are not its LM head applied to "
                "its final states, so the models cannot be compared"
            )
        return scored

    @property
    def device(self) -> torch.device:
        """The device of the head, and of the states that are its input."""
        return self.head.weight.device

    def inputs(self, batch: RowBatch) -> dict[str, Tensor]:
        """Return a batch's inputs on the device of the embeddings."""
        return {key: tensor.to(self.model.device) for key, tensor in batch.inputs.items()}

    def predictions(self, batch: RowBatch) -> HeadTarget:
        """Return the final states at a batch's answers with the head."""
        return self.of_states(batch, backbone_states(self.model, self.inputs(batch)))

    def of_states(self, batch: RowBatch, states: Tensor) -> HeadTarget:
        """Return the same of given states, `(batch, tokens, hidden_size)`."""
        return HeadTarget(batch.answer_states(states).to(self.device), self.head)


class ResidentPair:
    """Both models in memory; the blocks that they share run once.

    Attributes:
        shared: the number of shared blocks.
    """

    def __init__(self, dense: LazyTeacher, pruned: LazyTeacher, blocks_of: BlocksOf | None, probe: RowBatch):
        self._dense, self._pruned = ScoredModel.load("dense", dense, probe), ScoredModel.load("pruned", pruned, probe)
        self._blocks_of, self.shared = blocks_of, 0
        # No copy where both are on one device.
        self._dense_head = self._dense.head.map(lambda tensor: tensor.to(self._pruned.device))
        if blocks_of is not None:
            self.shared = count_shared_blocks(self._dense.model, self._pruned.model, blocks_of)
        if self.shared and not self._sharing_is_exact(probe):
            logger.warning(
                "the first %d blocks of both models are equal, but running them once changes the states; both run",
                self.shared,
            )
            self.shared = 0

    @torch.inference_mode()
    def predictions(self, batch: RowBatch) -> Predictions:
        """Return both models' predictions."""
        dense, pruned = self._states(batch, self.shared)
        dense_states = self._dense.of_states(batch, dense).hidden.to(self._pruned.device)
        return Predictions(HeadTarget(dense_states, self._dense_head), self._pruned.of_states(batch, pruned))

    def _states(self, batch: RowBatch, shared: int) -> tuple[Tensor, Tensor]:
        if not shared:
            return tuple(backbone_states(one.model, one.inputs(batch)) for one in (self._dense, self._pruned))
        models = self._dense.model, self._pruned.model
        return shared_states(*models, self._dense.inputs(batch), shared, self._blocks_of)

    @torch.inference_mode()
    def _sharing_is_exact(self, batch: RowBatch) -> bool:
        """Return whether shared blocks give the states of the two models alone, but for rounding; not where NaN."""
        pairs = zip(self._states(batch, self.shared), self._states(batch, 0), strict=True)
        return all(
            bool((states - alone).norm() <= ROUNDING * torch.finfo(alone.dtype).eps * alone.norm())
            for states, alone in pairs
        )


class StoredPair:
    """The pruned model in memory, and the dense model's final states in a teacher cache."""

    def __init__(self, cache: TeacherCache, pruned: LazyTeacher, rows: Sequence[PreparedRow], probe: RowBatch):
        self._cache, self._rows = cache, rows
        self._pruned = ScoredModel.load("pruned", pruned, probe)

    @torch.inference_mode()
    def predictions(self, batch: RowBatch) -> Predictions:
        """Return both models' predictions."""
        keys = torch.cat([row_keys(self._rows[int(row)]) for row in batch.rows])
        return Predictions(self._cache.targets(keys, self._pruned.device), self._pruned.predictions(batch))


class PrunedAlone:
    """The pruned model alone."""

    def __init__(self, pruned: LazyTeacher, probe: RowBatch):
        self._pruned = ScoredModel.load("pruned", pruned, probe)

    @torch.inference_mode()
    def predictions(self, batch: RowBatch) -> Predictions:
        """Return its predictions."""
        return Predictions(None, self._pruned.predictions(batch))


ModelPair = ResidentPair | StoredPair | PrunedAlone

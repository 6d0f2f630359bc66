"""The student as TRL's loss calls it."""

from dataclasses import replace

import torch
import torch._dynamo
from torch import nn
from transformers.modeling_outputs import ModelOutput

from trl_prune.trainers.kd.student_forward import DistillationBatch, DistillationOutput


class OutputRecorder:
    """A model that adds the distillation to the calls of TRL's loss, and keeps its output.

    Attributes:
        output: the output of the last call with TRL's fused head.
    """

    def __init__(self, model: nn.Module, batch: DistillationBatch):
        self._model, self._batch = model, batch
        self._needs_gradient = torch.is_grad_enabled()
        self.output: DistillationOutput | None = None

    def __call__(self, fused_lm_head: bool = False, **inputs: object) -> ModelOutput:
        """Call the model; the output that TRL sees has no cross-entropy."""
        # The student's states are read by forward hooks, which torch.compile by default does not guard: it would reuse
        # a graph compiled without them, or for other states in an earlier trainer, and not call them.
        with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
            if not fused_lm_head:
                return self._model(**inputs)
            # Where full logits give the cross-entropy, TRL calls this without gradient, for metrics only.
            with torch.set_grad_enabled(self._needs_gradient):
                self.output = self._model(**inputs, fused_lm_head=True, distillation=self._batch)
        return without_cross_entropy(self.output)


def without_cross_entropy(output: DistillationOutput) -> DistillationOutput:
    """Return an output whose cross-entropy is zero for TRL's loss: `objective` contains it already."""
    return replace(output, log_probs=torch.zeros_like(output.log_probs))

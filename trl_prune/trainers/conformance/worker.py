"""One of the processes that `check_processes` starts: it takes a step and writes its gradient."""

import importlib
import os
import sys
from pathlib import Path

from safetensors.torch import save_file
from torch.distributed.elastic.multiprocessing.errors import record

from trl_prune.trainers.conformance.case import VOCAB_SIZE, Builder, case_of_folder, take_step
from trl_prune.trainers.conformance.processes import gradient_path


@record  # so that torchrun's summary, the end of its output, has the traceback
def write_gradient(name: str, folder: Path, batch_size: int) -> None:
    """Take a step as one of torchrun's processes and write its gradient into a folder.

    Args:
        name: the builder as `module:function`.
        folder: the case's folder.
        batch_size: rows of this process.
    """
    module, _, function = name.partition(":")
    build: Builder = getattr(importlib.import_module(module), function)
    step = take_step(build, case_of_folder(folder, VOCAB_SIZE).with_batches(batch_size, 1))
    path = gradient_path(folder, int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]))
    save_file({weight: gradient.contiguous() for weight, gradient in step.gradient.items()}, path)


if __name__ == "__main__":
    write_gradient(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

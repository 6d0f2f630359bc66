"""Parameters that FSDP2 left in shards."""

from torch import Tensor
from torch.distributed.tensor import DTensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece; every rank of its mesh calls this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

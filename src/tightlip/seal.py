"""What tells the weights of a network from all others: one sha256 over their names, types, shapes and bytes.

It is the same on every machine and after every way to store them, so a network that was loaded, downloaded or moved is
the one that was certified if its hash is the one that was written down then.
"""

import hashlib

import torch
from torch import nn

from .errors import TightlipError


def weights_sha256(network: nn.Module) -> str:
    """The sha256 of a network's parameters and buffers, those in its ``state_dict``, in hexadecimal.

    It says nothing of the layers between the weights: `load` compares these with a file's description, and a proof is
    made again by `lipschitz`.

    Args:
        network: Any module with dense tensors; where they lie does not matter.

    Raises:
        TightlipError: for what is no module, and for tensors without numbers, or sparse ones.

    >>> weights_sha256(nn.Identity())[:12]
    'e3b0c44298fc'
    """
    if not isinstance(network, nn.Module):
        raise TightlipError(f"weights_sha256 takes a network (nn.Module), got a {type(network).__name__}")
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if tensor.is_meta or tensor.layout != torch.strided:
            raise TightlipError(f"{name} is a meta or sparse tensor, which has no bytes: fill it, or make it dense")
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

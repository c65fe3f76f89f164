"""torch's tensors on their way to another process: their memory goes apart from the pickle.

torch registers reducers of its own with the standard ForkingPickler. These move a tensor into
memory that both sides then share for good, and that the receiver must fetch while the sender lives.
Here a tensor of the CPU crosses as a numpy array does: copied once, looked at where it arrived, and
its receiver's own. What is in shared memory already (`tensor.share_memory_()`), or is of another
kind (sparse, quantized, of a GPU, part of a graph), is left to torch.

Tensors refer to storages, which are taken over too: several views of one storage arrive as several
views of one.
"""

import sys
from pickle import PickleBuffer


def taken_over(table):
    """The dispatch table, with these reducers in place of torch's, if those are in it."""
    torch = sys.modules.get("torch")
    tensor, storage = getattr(torch, "Tensor", None), getattr(torch, "UntypedStorage", None)
    if tensor not in table or storage not in table:
        return table
    parameter = torch.nn.Parameter
    ours = {storage: _reducer_of_storages(torch, table[storage])}
    for cls in (tensor, parameter):
        if cls in table:
            ours[cls] = _reducer_of_tensors(torch, table[cls])
    return {**table, **ours}


def _reducer_of_tensors(torch, theirs):
    classes = torch.Tensor, torch.nn.Parameter

    def reduce_tensor(tensor):
        if type(tensor) not in classes or not _is_plain(torch, tensor):
            return theirs(tensor)
        place = tensor.storage_offset(), tuple(tensor.size()), tensor.stride()
        is_parameter = type(tensor) is torch.nn.Parameter
        what = tensor.dtype, tensor.requires_grad, is_parameter
        return _make_tensor, (tensor.untyped_storage(), *place, *what)

    return reduce_tensor


def _reducer_of_storages(torch, theirs):
    def reduce_storage(storage):
        if storage.device.type != "cpu" or storage.is_shared():
            return theirs(storage)
        if not storage.nbytes():
            return torch.UntypedStorage, (0,)
        try:
            memory = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        except RuntimeError:  # a torch without numpy
            return theirs(storage)
        return _make_storage, (PickleBuffer(memory),)

    return reduce_storage


def _is_plain(torch, tensor):
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and tensor.is_leaf
        and not (tensor.is_conj() or tensor.is_neg() or any(getattr(tensor, "names", ())))
        and not tensor._backward_hooks
        and not tensor.is_shared()
    )


def _make_storage(memory):
    import torch

    return torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()


def _make_tensor(storage, offset, size, stride, dtype, requires_grad, is_parameter):  # noqa: PLR0917
    import torch

    tensor = torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_(requires_grad)

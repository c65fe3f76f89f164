"""`multiprocessing.shared_memory`: the standard library's own objects, for now."""

from multiprocessing.shared_memory import ShareableList, SharedMemory

__all__ = ["ShareableList", "SharedMemory"]

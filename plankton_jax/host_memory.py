"""The C library's allocator, told to keep what a training step frees. Linux with glibc only.

On a CPU the scratch memory of a compiled step is hundreds of megabytes. By default glibc gives such
blocks back to the system at once and asks for them at the next step, which costs a page fault and
a cleared page for each 4 KiB. Changes settings of this process and nothing else.
"""

import ctypes
import sys

# Of glibc's malloc.h and the kernel's mman-common.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 1 << 21


def keep_freed_memory(reserve: int = 1 << 32) -> bool:
    """Keeps freed memory in the process, the first `reserve` bytes of it in huge pages.

    Address space is reserved, memory is not. Returns whether the allocator can be told.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # One heap for threads to come, which never shrinks and has no exceptions for large blocks.
    for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        library.mallopt(parameter, value)
    address = library.malloc(reserve)
    if address:  # none where address space is limited: small pages then
        start = -(-address // _HUGE_PAGE) * _HUGE_PAGE
        length = (address + reserve - start) // _HUGE_PAGE * _HUGE_PAGE
        library.madvise(start, length, _MADV_HUGEPAGE)
        library.free(address)
    return True

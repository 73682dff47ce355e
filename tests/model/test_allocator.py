"""What glibc keeps of what is freed, in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")

THREADS_THAT_ALLOCATE = """
import ctypes, sys, threading
from inkdigits.model.allocator import use_one_heap

if sys.argv[1] == "one":
    use_one_heap()
everyone = threading.Barrier(4)
def allocate():
    kept = bytes(50_000)
    everyone.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def test_threads_share_one_heap():
    one, several = (_run(THREADS_THAT_ALLOCATE, how).count("<heap nr=") for how in ("one", "any"))
    assert one == 1 < several


FREES_BELOW_WHAT_IT_KEEPS = """
from inkdigits.model.allocator import return_freed_memory

def resident():
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1])

# Small enough for the heap, and the last block keeps the heap's end where it is.
blocks = [bytearray(60_000) for _ in range(500)]
kept = blocks.pop()
blocks.clear()
before = resident()
return_freed_memory()
print(before - resident())
"""


def test_freed_memory_is_given_back():
    assert int(_run(FREES_BELOW_WHAT_IT_KEEPS)) * os.sysconf("SC_PAGE_SIZE") > 20_000_000


def _run(*program):
    run = subprocess.run([sys.executable, "-c", *program], capture_output=True, check=True)
    return run.stdout.decode()

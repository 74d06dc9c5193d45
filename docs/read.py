# Reads what `shm_posix/shm_posix write` has left, from Python: the layout is in common/exchange.h.
import struct
from multiprocessing import resource_tracker, shared_memory

try:
    there = shared_memory.SharedMemory("tmp", track=False)
except TypeError:  # before Python 3.13 it would remove the object at our end
    there = shared_memory.SharedMemory("tmp")
    resource_tracker.unregister("/tmp", "shared_memory")
magic, count, *names = struct.unpack("=4sI16s16s16s", there.buf[:56])
there.close()
print(f"{magic.decode()}, {count} items")
print(*(name.split(b"\0")[0].decode() for name in names[:count]))

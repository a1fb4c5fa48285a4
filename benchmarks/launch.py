"""Run a program and print its figures: ``python -I -S launch.py WORD...``.

This process is small, run as a file and with few imports: until a new program has started, Linux
counts the memory of its parent as its own.
"""

import os
import sys
import time

started = time.perf_counter()
child = os.posix_spawnp(
    sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)]
)
_, status, used = os.wait4(child, 0)
seconds = time.perf_counter() - started
if status:
    sys.exit(f"{sys.argv[1]} ended with {os.waitstatus_to_exitcode(status)}")
mib = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
print(f'{{"seconds": {seconds}, "cpu": {used.ru_utime + used.ru_stime}, "mib": {mib}}}')

"""``dsir``, or ``python -m dsir_dagster``: loads the command line, runs it, ends the process.

What belongs here: starting and ending quickly. What does not: the commands (``dagster_project/cli.py``).

What Dagster and other libraries load lives until the process ends. Python's garbage collector would scan it again and
again during the import, and tear it down at the end: 0.9 of the 2.1 seconds of ``dsir status``.
"""

import atexit
import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    gc.disable()  # until a command has imported what it needs and opens its pipeline
    # During the import there is nothing to clean up.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _stop)
    from dsir_dagster import cli

    for number, handler in before.items():
        signal.signal(number, handler)
    try:
        code = cli.main()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        gc.unfreeze()  # leave the exit to Python
        raise
    if "pyarrow.fs" in sys.modules:  # it would wait for requests to object stores that are in progress
        atexit.unregister(sys.modules["pyarrow.fs"].ensure_s3_finalized)
    atexit._run_exitfuncs()
    os._exit(code)


def _stop(number: int, _: object) -> NoReturn:
    os.write(2, b"stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()

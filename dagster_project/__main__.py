"""``dsir``, or ``python -m dagster_project``: loads the command line, runs it, ends the process.

What belongs here: starting and ending quickly. What does not: the commands (``dagster_project/cli.py``).

What Dagster and the others load stays to the end. Python's garbage collector would look through it time and again while
it is loaded, and take it apart at the end: 0.9 of the 2.1 seconds of ``dsir status``.
"""

import atexit
import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    gc.disable()
    # While it loads there is nothing to end in order.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _stop)
    from dsir_dagster import cli

    for number, handler in before.items():
        signal.signal(number, handler)
    gc.freeze()
    gc.enable()
    try:
        code = cli.main()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        gc.unfreeze()  # the process ends as Python ends it
        raise
    atexit._run_exitfuncs()
    os._exit(code)


def _stop(number: int, _: object) -> NoReturn:
    os.write(2, b"stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()

"""``dsir``, or ``python -m dagster_project``: loads the command line, runs it, ends the process.

What belongs here: starting and ending quickly. What does not: the commands (``dagster_project/cli.py``).

What Dagster and the others load stays to the end. Python's garbage collector would look through it time and again while
it is loaded, and take it apart at the end: 0.9 of the 2.1 seconds of ``dsir status``.
"""

import atexit
import gc
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    gc.disable()
    from dagster_project import cli

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


if __name__ == "__main__":
    main()

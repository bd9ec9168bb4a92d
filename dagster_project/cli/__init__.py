"""The command line: ``dsir``.

What belongs here: running it to an exit code. What does not: the commands (``commands``), what they share
(``options``), the output of ``dsir run`` and ``dsir verify`` (``running``, ``verifying``), what commands find
(a module each, as ``dagster_project/status.py``).

Exit codes: 0 done, 1 something failed (named on standard error), 2 the command or the configuration is invalid, 130
stopped by Ctrl-C, 143 by SIGTERM.

Dagster, Numba and DuckDB take seconds to import, so commands import what they need when they are called: help and
completion wait for none of it.
"""

from __future__ import annotations

import sys

import typer

from dsir_dagster.cli.commands import app
from dsir_dagster.cli.options import Stopped, err, name_program
from dsir_dagster.signals import Signals
from dsir_dagster.terminal import write_anything

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of this process.
    """
    write_anything(sys.stdout, sys.stderr)
    name_program(sys.argv[0] if arguments is None else "dsir")
    with Signals() as signals:
        try:
            return app(arguments, prog_name="dsir", standalone_mode=False) or 0
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "dsir"
            err.print(f"{error.format_message()} (see `{command} -h`)", style="red")
            return 2
        except Stopped as error:
            err.print(str(error), style="yellow")
            return signals.exit_code

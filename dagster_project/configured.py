"""Which configuration and which home: named on the command line, in the environment, or by what lies here.

What belongs here: where both are looked for, the same for the command line and for Dagster's code location. What does
not: reading the file (``resources/settings/``), the folder itself (``resources/home.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

#: Taken from the working directory if nothing else names a configuration.
CONVENTIONAL = "dsir.yaml"


def find_config(given: str | Path | None = None, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the configuration: the given one, else the one that DSIR_CONFIG names, else ``dsir.yaml`` of this folder.

    Parameters
    ----------
    given : str or Path, optional
    say : callable
        Takes a line of text if nobody named the file.

    Raises
    ------
    ConfigError
        There is none of the three.
    """
    if given or (given := os.environ.get("DSIR_CONFIG")):
        return Path(given)
    if (here := Path(CONVENTIONAL)).exists():
        say(f"the configuration is {here.resolve()}")
        return here
    from dsir_dagster.resources.settings import ConfigError  # takes seconds

    raise ConfigError(
        f"no configuration: there is no {CONVENTIONAL} here. `dsir new FOLDER --target FILE` writes one; or pass "
        "--config my.yaml, or set DSIR_CONFIG (for `dg`, a line of `.env` beside pyproject.toml will do)"
    )


def find_home(given: str | Path | None = None) -> Path:
    """Return the home: the given one, else the one that DSIR_HOME names, else ``.dsir`` of this folder."""
    return Path(given or os.environ.get("DSIR_HOME") or ".dsir")

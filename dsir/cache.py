"""A place for compiled code if Numba finds none.

What belongs here: finding out, before Numba compiles anything, whether it can write to one of its folders. What does
not: what is compiled, and when (``compilation``).

Numba keeps compiled code beside the source, else in the user's cache. If it can write to neither, as in a container
that runs as a user without a home, every import of a compiled function fails.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path


def ensure_cache() -> None:
    """Point Numba to a temporary folder if it can write to none of its own.

    Raises
    ------
    FileNotFoundError
        There is no temporary folder either.
    """
    caches = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "~/.cache")
    given = os.environ.get("NUMBA_CACHE_DIR")
    # Without a home this stays `~`, and Numba would make a folder of that name in the working directory.
    of_user = os.path.join(os.path.expanduser(caches), "numba")
    places = (given, Path(__file__).parent / "__pycache__", of_user)
    if any(writable(place) for place in places if place):
        return
    import numba  # slow, and only needed here

    numba.config.CACHE_DIR = _private_folder()  # type: ignore[attr-defined]  # Numba sets its options dynamically


def writable(folder: str | Path) -> bool:
    """Whether a file can be made there, by Numba's own test."""
    if str(folder).startswith("~"):
        return False
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _private_folder() -> str:
    """Return a lasting folder that no one else can put code into, else a new one for this process."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    path = Path(tempfile.gettempdir()) / f"dsir-numba-{user}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == user
            and not found.st_mode & 0o022
            and writable(path)
        ):
            return str(path)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="dsir-numba-")

"""A place for compiled code where there is none.

Belongs here: finding out, before Numba compiles anything, whether it has a folder that it can write to. Does not belong
here: what is compiled, and when (``compilation``).

Numba keeps compiled code beside the source, else in the user's cache. Where it can write to neither, as in a container
that runs as a user without a home, every import of a compiled function fails.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path


def ensure_cache() -> None:
    """Point Numba to a folder among the temporary ones if it can write nowhere else that it looks.

    Raises
    ------
    FileNotFoundError
        There is no temporary folder either.
    """
    caches = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "~/.cache")
    given = os.environ.get("NUMBA_CACHE_DIR")
    # Of a user without a home it stays `~`: Numba would make a folder of that name here, wherever here is.
    of_user = os.path.join(os.path.expanduser(caches), "numba")
    places = (given, Path(__file__).parent / "__pycache__", of_user)
    if any(writable(place) for place in places if place):
        return
    import numba  # which takes a while, and is needed here only

    numba.config.CACHE_DIR = _private_folder()


def writable(folder: str | Path) -> bool:
    """Whether a file can be made there, as Numba finds it out."""
    if str(folder).startswith("~"):
        return False
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _private_folder() -> str:
    """Return a folder that lasts, and that no one else can put code into; else a new one for this process."""
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

"""Every statement, one file per table or question; :func:`load` reads one by its name."""

from importlib import resources


def load(name: str) -> str:
    """Return the text of ``sql/<name>.sql``."""
    return resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")

"""``dsir verify``: reading every output, and what is said of it.

What belongs here: output. What does not: reading and setting aside (``resources/verification.py``).
"""

from __future__ import annotations

from dsir_dagster.cli.options import Shared, err, out
from dsir_dagster.resources.catalog import Rebuilt
from dsir_dagster.resources.lineage import output_name
from dsir_dagster.resources.verification import rebuild_catalog, verify_files
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.status import shorten
from dsir_dagster.terminal import Text

#: Damaged files listed by name.
SHOWN = 20


def read_everything(shared: Shared, rebuild: bool) -> int:
    """Read every output; name damaged ones, and set them aside with all that was made from them.

    Parameters
    ----------
    shared : Shared
    rebuild : bool
        Whether to rebuild the catalog first.
    """
    workspace = shared.workspace()
    with workspace.lock.exclusive(shared.say):
        if rebuild:
            print_rebuilt(rebuild_catalog(workspace), workspace)
        verified = verify_files(workspace)
    damages = verified.damages
    if not damages:
        out.print("every file is as it was written")
        return 0
    for each in damages[:SHOWN]:
        err.print(Text(f"{each.output}: {workspace.store.where(each.file)} {each.what}", style="red"))
    if len(damages) > SHOWN:
        err.print(Text(f"and {len(damages) - SHOWN} more", style="red"))
    for asset in dict.fromkeys(asset for asset, _ in verified.followers):
        names = [output_name(*key) for key in verified.followers if key[0] == asset]
        err.print(Text(f"made from damaged files, so set aside too: {shorten(names)}", style="yellow"))
    total = f"{len(damages)} files are" if len(damages) > 1 else "1 file is"
    err.print(
        f"{total} damaged or gone; what was there is in {workspace.home / 'damaged'}, and "
        "`dsir run` makes all of it again"
    )
    return 1


def print_rebuilt(rebuilt: Rebuilt, workspace: Workspace) -> None:
    """Say what the catalog was rebuilt from."""
    source = (
        f"{rebuilt.kept} materializations from {rebuilt.source}" if rebuilt.source else "none from a copy"
    )
    text = f"{workspace.catalog.path} was rebuilt: {source}, {rebuilt.added} from lineage files"
    if rebuilt.aside:
        text += f"; the damaged one is {rebuilt.aside}"
    out.print(Text(text), soft_wrap=True)
    if rebuilt.source is None and rebuilt.added:
        out.print("there was no copy: the history before the newest outputs is lost", style="yellow")
    for path in rebuilt.rejected:
        text = f"{path}: its files are gone or differ from what was written; `dsir run` makes them again"
        err.print(Text(text, style="yellow"))

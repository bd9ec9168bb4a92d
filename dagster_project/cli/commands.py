"""The commands of ``dsir``: their arguments, their help, an example of each.

What belongs here: what can be typed. What does not: options that all share (``options``), what a command does: a module
of its own, imported when the command is called.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from dsir_dagster.cli.options import (
    Json,
    Shared,
    command,
    err,
    out,
    plain_command,
    print_document,
    selections,
)
from dsir_dagster.configured import CONVENTIONAL

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

SelectionName = Annotated[
    str, typer.Option("--selection", metavar="NAME", help="Name of a selection.", autocompletion=selections)
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dsir {version_of('dsir-dagster')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _dsir(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Pick, from a raw pool of text, the documents that are distributed like a target.

    DSIR as a Dagster asset graph on DuckDB. Begin with your own files:

    \b
      dsir new FOLDER --target FILE    write dsir.yaml from what is in the files
      dsir doctor                      look for likely trouble
      dsir run                         pick
      dsir report                      see what was picked, and how good it is
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@plain_command(app, "dsir new crawl/ --target papers.jsonl\ndsir new 's3://bucket/pool/*.parquet' -o my.yaml")
def new(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Folder, file or pattern of the raw pool.")],
    target: Annotated[
        str | None, typer.Option(metavar="PATH", help="Folder, file or pattern of what you want more of.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="YAML", help="The file to write.")] = Path(
        CONVENTIONAL
    ),
) -> int:
    """Write a commented configuration from a folder of files.

    Looks at the files, proposes the fields of text, id and source, a size and a selection, and shows five documents.
    An existing file stays as it is.
    """
    from dsir_dagster.new import write_new

    return write_new(pool, target, output, out, err)


@command(app, "dsir doctor\ndsir doctor --json | jq '.findings[] | select(.warning)'")
def doctor(shared: Shared, as_document: Json = False) -> int:
    """Look at pool and targets for likely trouble, before a run.

    Each warning comes with its number and with advice. Warnings are not failures.
    """
    from dsir.compilation import warm_up
    from dsir_dagster.doctor import examine
    from dsir_dagster.doctor.printing import print_doctor

    workspace = shared.workspace()
    warm_up(workspace.settings.features.spec(), (lambda text: None) if as_document else shared.say)
    findings, curves = examine(workspace)
    if as_document:
        print_document({"findings": findings, "curves": curves})
    else:
        print_doctor(findings, curves, shared.quiet, out)
    return 0


@command(app, "dsir run\ndsir run --config my.yaml --home /data/picks")
def run(shared: Shared) -> int:
    """Bring everything that is missing or stale up to date."""
    from dsir_dagster.cli.running import bring_up_to_date

    return bring_up_to_date(shared)


@command(app, "dsir status\ndsir status --json | jq .states")
def status(
    shared: Shared,
    every: Annotated[bool, typer.Option("--all", help="List the fresh partitions too.")] = False,
    as_document: Json = False,
) -> int:
    """Show what is fresh, stale, missing or failed, and why."""
    from dsir_dagster.status import collect_status, print_status

    known = collect_status(shared.workspace())
    if as_document:
        print_document(known.document())
    else:
        print_status(known, every, shared.quiet, out)
    return 0


@command(
    app,
    "dsir report\ndsir report --html\ndsir report --json | jq '.selections[] | {selection, tokens, folder}'",
    needs_home=True,
)
def report(
    shared: Shared,
    html: Annotated[
        bool, typer.Option("--html", help="Write a page that compares all selections of the home.")
    ] = False,
    page: Annotated[
        Path, typer.Option("--output", "-o", help="Where the page goes. Default: report.html of the home.")
    ] = Path(),
    as_document: Json = False,
) -> int:
    """Show what was read, what was picked, from where, and how good it is."""
    from dsir_dagster.comparison import print_comparison
    from dsir_dagster.report import collect_report, print_report

    if html or page != Path():
        print_comparison(shared.workspace(), page, out)
        return 0
    found = collect_report(shared.workspace())
    if as_document:
        print_document(found)
    else:
        print_report(found, out)
    return 0


@command(app, "dsir why wiki-00017 --selection medicine", needs_home=True)
def why(
    shared: Shared,
    doc_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a document.")],
    selection: SelectionName,
    as_document: Json = False,
) -> int:
    """Explain why a document is in a selection, or is not."""
    from dsir_dagster.why import collect_why, print_why

    found = collect_why(shared.workspace(), doc_id, selection)
    if as_document:
        print_document(found)
    else:
        print_why(found, out)
    return 0


@command(app, "dsir changes medicine\ndsir changes medicine 3 5", needs_home=True)
def changes(
    shared: Shared,
    selection: Annotated[
        str, typer.Argument(metavar="SELECTION", help="Its name.", autocompletion=selections)
    ],
    old: Annotated[
        str | None, typer.Argument(metavar="OLD", help="Number or fingerprint. Default: the one before.")
    ] = None,
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="Number or fingerprint. Default: the newest.")
    ] = None,
    as_document: Json = False,
) -> int:
    """Show which documents entered or left between two versions of a selection, and why."""
    from dsir_dagster.changes import collect_changes, print_changes

    found = collect_changes(shared.workspace(), selection, old, new)
    if as_document:
        print_document(found)
    else:
        print_changes(found, out)
    return 0


@command(app, "dsir verify\ndsir verify --rebuild", needs_home=True)
def verify(
    shared: Shared,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="First rebuild the catalog from its last copy and the outputs' lineage files."
        ),
    ] = False,
) -> int:
    """Read every output and compare it with its checksum.

    What is damaged, and what was made from it, is set aside for the next run to make again.
    """
    from dsir_dagster.cli.verifying import read_everything

    return read_everything(shared, rebuild)


@command(app, "dsir prune\ndsir prune --config a.yaml --config b.yaml --yes", needs_home=True, several=True)
def prune(shared: Shared, yes: Annotated[bool, typer.Option("--yes", help="Remove them.")] = False) -> int:
    """Show old versions, and outputs that no configuration refers to; with --yes remove them."""
    from dsir_dagster.instance import open_instance
    from dsir_dagster.prune import find_leftovers, print_leftovers, remove_leftovers
    from dsir_dagster.status import print_absent

    workspaces = shared.workspaces()
    workspace = workspaces[0]
    # A list may go out of date; what is removed must not, so nobody else may write meanwhile.
    with workspace.lock.exclusive(shared.say) if yes else nullcontext():
        leftovers, absent = find_leftovers(workspaces)
        print_absent(absent, shared.out)
        if absent:
            shared.out.print("nothing of it is removed while it is absent")
        if not leftovers:
            out.print("there is nothing to remove: every output belongs to a configuration")
            return 0
        print_leftovers(leftovers, shared.out)
        total = f"{len(leftovers)} files and folders, {sum(each.bytes for each in leftovers) / 1e6:,.1f} MB"
        if not yes:
            out.print(f"{total}; `dsir prune --yes` removes them", soft_wrap=True)
            return 0
        with open_instance(workspace.home) as instance:
            remove_leftovers(workspace, leftovers, instance)
    out.print(f"removed {total}")
    return 0


@command(app, "dsir init")
def init(shared: Shared) -> int:
    """Prepare the home folder and register the shards, for a Dagster UI on it."""
    from dsir_dagster.resources.borders import several
    from dsir_dagster.ui import prepare

    plan, new = prepare(shared.workspace())
    out.print(
        f"{several(len(plan.shards), 'shard')}, {new} of them new; outputs go to {shared.home.resolve()}"
    )
    return 0


@command(app, "dsir ui\ndsir ui --config my.yaml --port 3001")
def ui(
    shared: Shared,
    port: Annotated[int, typer.Option(metavar="PORT", help="Where it listens.", min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address it listens on.")] = "127.0.0.1",
) -> int:
    """Open the Dagster UI on a configuration."""
    from dsir_dagster.ui import serve

    return serve(shared.workspace(), port, host, shared.say, shared.verbose)


@plain_command(app, "dsir schema > dsir.schema.json")
def schema() -> int:
    """Print the JSON Schema of the configuration, by which editors complete and check it."""
    from dsir_dagster.schema import configuration_schema

    print_document(configuration_schema())
    return 0

"""The progress of ``dsir run``: a bar in a terminal, a line now and then anywhere else, both on standard error.

What belongs here: how it is shown. What does not: adding up (``resources/progress.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from dsir_dagster.resources import progress
from dsir_dagster.resources.progress import Progress
from dsir_dagster.terminal import Terminal, Text

#: Seconds until the bar of a step appears: most steps are over by then.
PATIENCE = 1.0


@contextmanager
def shown_progress(terminal: Terminal) -> Iterator[None]:
    """Show the progress of all steps within this context.

    Parameters
    ----------
    terminal : Terminal
        Gets a bar if it can erase it again, else a line for every step that takes long.
    """
    bar = _Bar(terminal)

    def show_line(_: Progress, line: str | None) -> None:
        if line is not None:
            terminal.print(f"  {line}", soft_wrap=True)

    watch = bar.show if terminal.is_terminal and not terminal.is_dumb_terminal else show_line
    progress.watchers.append(watch)
    try:
        yield
    finally:
        progress.watchers.remove(watch)
        bar.stop()


class _Bar:
    """The bar of the step at work, and below it what is being done; both are gone when the step is over."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._live: Live | None = None

    def show(self, step: Progress, line: str | None) -> None:
        """Begin to show a step once it takes long, until it is over."""
        if step.over:
            self.stop()
        elif self._live is None and step.seconds >= PATIENCE:
            # Drawn from a thread, so that it stays up to date while this one writes to the catalog.
            self._live = Live(
                console=self._terminal,
                get_renderable=lambda: drawn(step),
                refresh_per_second=5,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start(refresh=True)

    def stop(self) -> None:
        """Remove the bar."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def drawn(step: Progress) -> RenderableType:
    """Draw a step as two lines: its name, the bar and the time; what is being done.

    The bar of a part is followed by the step's time so far: how many parts are to come is not known.
    """
    share = step.share
    bar = ProgressBar(
        total=None if share is None else 1.0,
        completed=share or 0.0,
        width=40,
        style="bright_black",
        complete_style="cyan",
        finished_style="cyan",
        pulse_style="cyan",
    )
    first = Table.grid(padding=(0, 2, 0, 0))
    first.add_column(no_wrap=True, overflow="ellipsis")
    first.add_column()  # the bar gives way to the rest
    first.add_column(no_wrap=True, justify="right", min_width=4)
    first.add_column(no_wrap=True, min_width=11)
    time = step.time_so_far if step.part else step.time_left
    percent = "" if share is None else f"{share:.0%}"
    first.add_row(Text(f"  {step.name}", "cyan"), bar, Text(percent), Text(time))
    return Group(first, Text(f"  {step.details}", no_wrap=True, overflow="ellipsis"))

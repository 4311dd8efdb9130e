"""`ztunnel COMMAND`: each other module of this package is a command of its name, imported when it is called.

A module `what_if.py` holds a click command `what_if`, called as `what-if`; the first line of its docstring is
its help. So a command starts as fast as its own imports allow, and a module that cannot be imported
breaks only itself.
"""

from __future__ import annotations

import ast
import gc
import importlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from ztunnel.errors import ConfigError, Unsupported

_PACKAGE = Path(__file__).parent
_NO_COMMANDS = ("main", "options")


class Commands(click.Group):
    """The commands found beside this module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, without importing one."""
        found = (path.stem for path in _PACKAGE.glob("*.py"))
        return sorted(
            name.replace("_", "-") for name in found if name not in _NO_COMMANDS and not name.startswith("_")
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one. Raises ClickException with the reason if that fails."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        obey_from_the_start(os.getpid())
        try:
            with _uncollected():
                found = getattr(importlib.import_module(f"ztunnel.cli.{name}"), name)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise click.ClickException(f"the command {cmd_name!r} cannot be loaded: {error}") from error
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first line of each module's docstring, read and not run."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name)) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, which would otherwise import every command to find one that is spelt alike."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.list_commands(ctx):
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"no command {name!r}; there are: {known}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """What the operator has to fix is one message, not a stack."""
        try:
            return super().invoke(ctx)
        except (ConfigError, Unsupported) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ztunnel", prog_name="ztunnel")
def main() -> None:
    """An ambient service mesh data plane: eBPF redirection, HBONE, identity, policy, telemetry."""


@contextmanager
def _uncollected() -> Iterator[None]:
    """What an import makes stays: the garbage collector would look through all of it again and again, for a
    sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def obey_from_the_start(pid: int) -> None:
    """Have SIGTERM end the process while it starts. For the first one of a container the kernel does nothing
    by itself: it would be told to end in vain, and killed when its pod's grace is over."""
    if pid == 1:
        signal.signal(signal.SIGTERM, _end)


def _end(signum: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


def _summary(name: str) -> str:
    try:
        text = ast.get_docstring(ast.parse((_PACKAGE / f"{name.replace('-', '_')}.py").read_text()))
    except SyntaxError as error:
        return f"(cannot be loaded: {error})"
    return (text or "").partition("\n")[0]

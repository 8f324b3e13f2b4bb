"""The `wfvae` program: its commands and what they have in common."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typing_extensions import override

from wfvae_cli import __version__
from wfvae_cli.cli.params import add_command
from wfvae_cli.cli.program import Program

COMMANDS = (
    "encode",
    "decode",
    "roundtrip",
    "compare",
    "stats",
    "info",
    "models",
    "bench",
    "convert",
    "audit",
    "convert-cache",
)
"""Names of the commands, in the order of `wfvae --help`."""


def command_app(name: str) -> typer.Typer:
    """Import a command's module, and make a program of this command alone."""
    module, function = _find(name)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    add_command(alone, function, module.EXAMPLES)
    return alone


def _find(name: str) -> tuple[ModuleType, Callable[..., None]]:
    function = name.replace("-", "_")
    module = importlib.import_module(f"wfvae_cli.cli.{function}")
    return module, getattr(module, function)


def _in_brief(name: str) -> TyperCommand:
    """A command as the list of all shows it, whose options are not built."""
    _, function = _find(name)
    return TyperCommand(name, help=inspect.cleandoc(function.__doc__ or ""))


class _Commands(Mapping[str, Any]):
    """Click's commands by name, each imported and built when it is asked for.

    A run needs one of them; the modules and options of all would take as long again as its own.
    """

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    @override
    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._built:
            self._built[name] = typer.main.get_command(command_app(name))
        return self._built[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    @override
    def __len__(self) -> int:
        return len(COMMANDS)


class _LazyProgram(Program):
    """The program with all commands, none of which is imported yet."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Commands()

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    @override
    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.commands = {name: _in_brief(name) for name in COMMANDS}
        super().format_help(ctx, formatter)


app = typer.Typer(
    name="wfvae",
    cls=_LazyProgram,
    help="Turn videos and images into the latents of a video VAE and back.\n\n"
    "Exact, streaming, and constant in memory: every frame comes back, however long the clip.",
    epilog="Exit codes: 0 done, 1 our bug, 2 usage, 3 input, 4 weights, 5 output, "
    "6 memory or device, 7 some files of many failed, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wfvae {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    del version  # its callback has printed and left

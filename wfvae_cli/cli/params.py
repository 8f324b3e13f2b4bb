"""Commands from functions whose parameters are options dataclasses: an option is declared once.

A parameter whose type is a dataclass stands for those of its fields that are annotated with an
`Option`; the function gets the dataclass, built from what the user gave. Other parameters are
annotated with an `Option` or an `Argument` themselves.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import run_reported
from wfvae_cli.errors import UsageError
from wfvae_cli.option import Argument, Option


def add_command(app: typer.Typer, function: Callable[..., None], examples: str) -> None:
    """Add a function to a program, as the command of the function's name, with dashes.

    Args:
        app: the program.
        function: what the command does; its docstring is the command's help.
        examples: command lines, one on each line, which the help shows first.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Mapping[str, _Field]] = {}
    plain: dict[str, _Field] = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(hints[key]):
            groups[key] = _fields(hints[key])
        else:
            plain[key] = _Field(key, hints[key], parameter.default)
    fields = dict(plain)
    for group in groups.values():
        assert not fields.keys() & group.keys(), "two options have one name"
        fields.update(group)

    def call(given: Mapping[str, Any]) -> None:
        values = {key: field.value(given[key]) for key, field in fields.items()}
        built = {
            key: hints[key](**{each: values[each] for each in group})
            for key, group in groups.items()
        }
        function(**{key: values[key] for key in plain}, **built)

    def run(context: typer.Context, **given: Any) -> None:
        console = Console(json=bool(given.get("json")), quiet=bool(given.get("quiet")))
        _given.set(tuple(each for key, each in fields.items() if _is_given(context, key)))
        run_reported(lambda: call(given), console)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(field.parameter() for field in fields.values()),
        ]
    )
    common = frozenset(key for key, field in fields.items() if field.is_common)
    register = app.command(
        function.__name__.replace("_", "-"),
        cls=_command_class(common),
        help=_help(function, examples),
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    register(run)


def options_given(panel: str = "") -> list[str]:
    """List the options that the command line gives, default values included.

    Args:
        panel: beginning of the name of the groups in `--help` that they must be in.

    Returns:
        The first spelling of each, such as `--save-dtype`.
    """
    return [
        each.flags[0]
        for each in _given.get()
        if isinstance(each.declared, Option) and (each.declared.panel or "").startswith(panel)
    ]


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _help(function: Callable[..., None], examples: str) -> str:
    """The help of a command: what it does, examples, then the rest of its docstring."""
    summary, *details = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    # Typer keeps the line breaks of the paragraphs that begin with \b.
    shown = "\n".join(f"  {line}" for line in inspect.cleandoc(examples).splitlines())
    rest = (paragraph.replace("\n", " ") for paragraph in details)
    return "\n\n".join((summary, f"\b\nExamples:\n{shown}", *rest))


def _command_class(common: frozenset[str]) -> type[TyperCommand]:
    """A command whose `-h` shows the `common` options, and whose `--help` shows all."""

    class Command(TyperCommand):
        is_brief = False

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            own = args[: args.index("--")] if "--" in args else args
            self.is_brief = "-h" in own and "--help" not in own
            return super().parse_args(ctx, args)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            rare = [
                each
                for each in self.params
                if self.is_brief and each.name not in common and not getattr(each, "hidden", False)
            ]
            for each in rare:
                each.hidden = True  # type: ignore[attr-defined]  # options have it
            super().format_help(ctx, formatter)
            for each in rare:
                each.hidden = False  # type: ignore[attr-defined]
            if rare:
                options = "option" if len(rare) == 1 else "options"
                typer.echo(f" And {len(rare)} more {options}: {ctx.command_path} --help\n")

    return Command


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field or parameter that is an option or argument of a command."""

    name: str
    hint: Any
    default: Any

    @property
    def declared(self) -> Option | Argument:
        """The `Option` or `Argument` that it is annotated with."""
        return next(each for each in get_args(self.hint) if isinstance(each, (Option, Argument)))

    @property
    def is_common(self) -> bool:
        """True where `-h` lists it."""
        declared = self.declared
        return isinstance(declared, Argument) or declared.common or self.default is _REQUIRED

    @property
    def flags(self) -> tuple[str, ...]:
        """Spellings on the command line, the first one being the name in messages."""
        assert isinstance(self.declared, Option)
        return self.declared.flags or (f"--{self.name.replace('_', '-')}",)

    def value(self, given: Any) -> Any:
        """The field's value, from what Typer made of the command line.

        Raises:
            UsageError: it cannot be parsed.
        """
        declared = self.declared
        if given is None or isinstance(declared, Argument) or declared.parse is None:
            return given
        if given == _shown(self.default):
            return self.default
        try:
            return declared.parse(given)
        except ValueError as error:
            raise UsageError(f"{self.flags[0]}: {error}") from None

    def parameter(self) -> inspect.Parameter:
        """The parameter that Typer makes an option or argument of."""
        declared, kind = self.declared, get_args(self.hint)[0]
        default = inspect.Parameter.empty if self.default is _REQUIRED else self.default
        if isinstance(declared, Argument):
            info: Any = typer.Argument(metavar=declared.metavar, help=declared.help)
        else:
            if declared.parse is not None:
                kind, default = str | None, _shown(default)
            complete = declared.complete
            info = typer.Option(
                *self.flags,
                help=declared.help,
                metavar=declared.metavar,
                rich_help_panel=declared.panel,
                min=declared.least,
                max=declared.most,
                hidden=declared.hidden,
                autocompletion=None if complete is None else lambda: list(complete()),
            )
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, info],
        )


_REQUIRED = inspect.Parameter.empty
_given: ContextVar[tuple[_Field, ...]] = ContextVar("given", default=())
"""Options and arguments of the command line that is being run."""


def _shown(default: Any) -> Any:
    """A default that is parsed from text, as the help shows it."""
    return default if default is None or default is _REQUIRED else str(default)


def _fields(options: Any) -> Mapping[str, _Field]:
    """The fields of an options dataclass that are options of a command."""
    hints = get_type_hints(options, include_extras=True)
    found = {}
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        if get_origin(hint) is Annotated and any(isinstance(e, Option) for e in get_args(hint)):
            default = _REQUIRED if field.default is dataclasses.MISSING else field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            found[field.name] = _Field(field.name, hint, default)
    return found

"""Pages that are written when the site is built: the command line, and the Python API.

Both come from the code, so no copy of them can go stale: commands from the options that Typer has,
functions and classes from what `wfvae_cli` offers (mkdocstrings fills in their docstrings).
"""

from __future__ import annotations

import html
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from typer.models import CommandInfo, OptionInfo, ParameterInfo

import wfvae_cli
from wfvae_cli.cli.app import COMMANDS, command_app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site (called by MkDocs)."""
    from mkdocs.structure.files import File

    for path, content in (
        ("reference/command-line.md", command_line()),
        ("reference/python-api.md", python_api()),
    ):
        files.append(File.generated(config, path, content=content))
    return files


_DRAWING = re.compile(r"!\[[^]]*\]\(((?:\.\./)*assets/[\w-]+\.svg)\)")


def on_page_markdown(markdown: str, page: Page, **kwargs: Any) -> str:
    """Put drawings into their page, whose colours they then have (called by MkDocs)."""
    folder = Path(page.file.abs_src_path or "").parent

    def inline(found: re.Match[str]) -> str:
        drawing = " ".join((folder / found[1]).read_text().split("\n"))
        return f'<div class="drawing">{drawing}</div>'

    return _DRAWING.sub(inline, markdown)


def command_line() -> str:
    """Write the page of all commands: what `--help` says, as tables."""
    return "\n\n".join(
        (
            "# Command line",
            "`wfvae COMMAND -h` lists the usual options of a command, `--help` all of them. This "
            "page is that help, written from the code when the site was built.",
            *(_command(command_app(name).registered_commands[0]) for name in COMMANDS),
            "See also the [exit codes](exit-codes.md).",
        )
    )


def _command(command: CommandInfo) -> str:
    function = command.callback
    assert function is not None
    panels: dict[str, list[str]] = defaultdict(list)
    for name, hint, default in _parameters(function):
        if not get_args(hint):  # the program's context, which is no option
            continue
        kind, info = get_args(hint)[:2]
        if not info.hidden:
            is_option = isinstance(info, OptionInfo)
            panel = info.rich_help_panel or ("Options" if is_option else "Arguments")
            panels[panel].append(_row(name, kind, info, default))
    tables = (
        f"**{panel}**\n\n| | takes | |\n|---|---|---|\n" + "\n".join(rows)
        for panel, rows in panels.items()
    )
    text = inspect.cleandoc(command.help or function.__doc__ or "")
    return "\n\n".join(
        (
            f"## wfvae {command.name or function.__name__}",
            *_prose(text),
            *_prose(command.epilog),
            *tables,
        )
    )


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Any, Any]]:
    """Give name, annotation and default of each parameter of a command's function."""
    hints: Mapping[str, Any] = {}
    if not hasattr(function, "__signature__"):  # written by hand, its annotations are strings
        hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        yield name, hints.get(name, parameter.annotation), parameter.default


def _prose(text: str | None) -> Iterator[str]:
    """Give the paragraphs of a help text, its examples as a block of commands."""
    for paragraph in (text or "").replace("\b\n", "").split("\n\n"):
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        if any(line.startswith(("wfvae ", "ffmpeg ")) for line in lines):
            shown = (line for line in lines if line and line != "Examples:")
            yield "```text\n" + "\n".join(shown) + "\n```"
        elif lines and lines not in (["Examples:"], [""]):
            yield _text(" ".join(lines))


def _row(name: str, kind: Any, info: ParameterInfo, default: Any) -> str:
    is_argument = not isinstance(info, OptionInfo)
    if is_argument:
        shown, value = f"`{info.metavar or name.upper()}`", ""
    else:
        # What Typer takes first is a default, or in Annotated the first spelling.
        first = (info.default,) if str(info.default).startswith("-") else ()
        flags = (*first, *(info.param_decls or ())) or (f"--{name.replace('_', '-')}",)
        shown = ", ".join(f"`{flag}`" for flag in "/".join(flags).split("/"))
        value = _value(kind, info)
    notes = [_text(info.help or "")]
    if default is inspect.Parameter.empty:
        notes.append("Required.")
    elif default is not None and default is not False:
        notes.append(f"Default: `{default}`.")
    return f"| {shown} | {value} | {' '.join(notes)} |"


def _value(kind: Any, info: ParameterInfo) -> str:
    """Say what an option takes; nothing for a switch."""
    kinds = [each for each in get_args(kind) if each is not type(None)] or [kind]
    choices = [value for each in (kind, *kinds) for value in get_args(each)]
    if kind is bool:
        return ""
    if info.metavar:
        text = info.metavar
    elif all(isinstance(choice, str) for choice in choices) and choices:
        text = "|".join(dict.fromkeys(choices))
    else:
        names = {int: "N", float: "NUMBER", str: "TEXT"}
        text = names.get(kinds[0], "FILE")
    return "`" + text.replace("|", r"\|") + "`"


def _text(help_text: str) -> str:
    r"""Make Markdown of a help text: `\[` is Rich's way to write a bracket."""
    plain = html.escape(help_text.replace("\\[", "["), quote=False)
    return re.sub(r"([|*_\[\]])", r"\\\1", plain)


_API = (
    ("Tensors", ("encode", "decode", "roundtrip", "compare")),
    ("Datasets", ("encode_dataset", "latent_stats")),
    ("Files", ("encode_clip", "decode_clip", "roundtrip_clip", "EncodeOptions")),
    ("Models", ("load_model", "Stream")),
    ("Latents and training", ("LatentFile", "LatentDataset")),
    ("Media", ("open_clip", "open_writer", "Sampling", "VideoOptions")),
)


def python_api() -> str:
    """Write the page of all that `wfvae_cli` offers."""
    homes = dict(wfvae_cli._HOMES)
    sections = []
    for title, names in _API:
        found = [name for name in names if name in homes]
        sections.append(_section(title, ((name, homes.pop(name)) for name in found)))
    if homes:
        sections.append(_section("More", homes.items()))
    return "\n\n".join(
        (
            "# Python API",
            "`import wfvae_cli` offers all of these. Names are imported when first used, so that "
            "the import itself loads neither torch nor av.",
            "Import it before torch: it sets `OMP_WAIT_POLICY=passive`, unless you have set it, "
            "which torch reads when it is loaded ([why](../how-it-works.md#speed)).",
            *sections,
        )
    )


def _section(title: str, entries: Iterable[tuple[str, str]]) -> str:
    blocks = (
        f"::: wfvae_cli.{module}.{name}\n    options:\n      heading: wfvae_cli.{name}\n"
        "      heading_level: 3"
        for name, module in entries
    )
    return "\n\n".join((f"## {title}", *blocks))

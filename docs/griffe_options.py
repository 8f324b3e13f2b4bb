"""Fields of options dataclasses, as the Python API shows them: their type, and their help."""

from __future__ import annotations

import ast
from typing import Any

import griffe


class PlainOptions(griffe.Extension):  # type: ignore[misc, unused-ignore]  # not always there
    """Takes `Annotated[TYPE, Option("Help.")]` for TYPE, documented by the help."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Rewrite an attribute that is an option (called by Griffe)."""
        annotation = attr.annotation
        if not isinstance(annotation, griffe.ExprSubscript):
            return
        arguments = annotation.slice
        if str(annotation.left) != "Annotated" or not isinstance(arguments, griffe.ExprTuple):
            return
        kind, *details = arguments.elements
        option = next((each for each in details if isinstance(each, griffe.ExprCall)), None)
        if option is None or str(option.function) != "Option":
            return
        attr.annotation = kind
        text = ast.literal_eval(str(option.arguments[0])).replace("\\[", "[")
        if attr.docstring is None:
            attr.docstring = griffe.Docstring(text, parent=attr)

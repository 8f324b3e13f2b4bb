from __future__ import annotations

from pathlib import Path

import pytest

from wfvae_cli.errors import UsageError
from wfvae_cli.report.formats import check_json_path, plot_format


@pytest.mark.parametrize(("name", "form"), [("a.png", "png"), ("a.SVG", "svg"), ("b/a.pdf", "pdf")])
def test_the_suffix_names_the_format(name: str, form: str) -> None:
    assert plot_format(Path(name)) == form


@pytest.mark.parametrize("name", ["a.jpg", "a", "png"])
def test_other_plots_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"\*\.png, \*\.svg or \*\.pdf"):
        plot_format(Path(name))


def test_statistics_are_json() -> None:
    check_json_path(Path("a.json"))
    check_json_path(Path("/dev/null"))
    with pytest.raises(UsageError, match=r"\*\.json, got x\.csv"):
        check_json_path(Path("x.csv"))

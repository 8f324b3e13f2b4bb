from __future__ import annotations

import json

import pytest

from wfvae_cli.json_text import to_json


@pytest.mark.parametrize("name", ["plain", "ï☃", "\udcff.mp4", "\ud800"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_name_is_written_and_read_back(name: str, encoding: str) -> None:
    text = to_json({"name": name}, encoding, indent=1)
    assert json.loads(text.encode(encoding).decode(encoding)) == {"name": name}


def test_what_the_encoding_has_is_not_escaped() -> None:
    assert to_json(["ï☃"]) == '["ï☃"]'
    assert to_json(["ï☃"], "latin-1") == '["\\u00ef\\u2603"]'

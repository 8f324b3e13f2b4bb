"""A latent file's header may name a model, and must not make anybody download one."""

from __future__ import annotations

from pathlib import Path

import pytest

from wfvae_cli.errors import WeightsError
from wfvae_cli.models import hub


def test_names_of_the_catalogue_and_paths_are_taken(tmp_path: Path) -> None:
    for name in ("wfvae-tiny", "sdxl-vae", "stabilityai/sdxl-vae", str(tmp_path)):
        assert hub.source_named_by_file(name) == name


@pytest.mark.parametrize("name", ["evil/repo", "evil/repo/folder@main", "stabilityai/sdxl-vae@x"])
def test_another_repository_has_to_be_chosen(name: str) -> None:
    with pytest.raises(WeightsError, match=f"add --model {name}"):
        hub.source_named_by_file(name)


def test_a_repository_in_the_cache_is_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "cached_folder", lambda source: tmp_path)
    assert hub.source_named_by_file("some/repo") == str(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-here/x", "a\0b", "é/é"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(WeightsError):
        hub.source_named_by_file(name)

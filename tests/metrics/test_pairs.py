from pathlib import Path

import pytest

from wfvae_cli.errors import InputError
from wfvae_cli.metrics.pairs import pair_directories


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_equal_paths_and_other_suffixes_pair(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", "x.mp4", "deep/y.MOV", "deep/er/z.png", "notes.txt", ".hidden/h.mp4")
    b = tree(tmp_path / "b", "x.mp4", "deep/y.mkv", "deep/er/z.png", "report.json", ".part.mp4")
    pairing = pair_directories(a, b)
    assert [(p.name, p.original, p.reconstruction) for p in pairing.pairs] == [
        ("deep/er/z.png", a / "deep/er/z.png", b / "deep/er/z.png"),
        ("deep/y.MOV", a / "deep/y.MOV", b / "deep/y.mkv"),
        ("x.mp4", a / "x.mp4", b / "x.mp4"),
    ]
    assert pairing.unmatched == ()


def test_the_same_name_in_another_folder_does_not_pair(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", "one/x.mp4", "y.mp4")
    b = tree(tmp_path / "b", "two/x.mp4", "y.mp4")
    pairing = pair_directories(a, b)
    assert [pair.name for pair in pairing.pairs] == ["y.mp4"]
    assert [file.name for file in pairing.unmatched] == ["one/x.mp4", "two/x.mp4"]
    assert f"no counterpart in {b}" in pairing.unmatched[0].error
    assert f"no counterpart in {a}" in pairing.unmatched[1].error


def test_names_that_leave_a_choice_are_not_paired(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", "x.mp4", "x.png", "y.png")
    b = tree(tmp_path / "b", "x.mkv", "y.png")
    pairing = pair_directories(a, b)
    assert [pair.name for pair in pairing.pairs] == ["y.png"]
    assert [file.name for file in pairing.unmatched] == ["x.mkv", "x.mp4", "x.png"]
    assert "several files" in pairing.unmatched[0].error
    assert "x.mp4, x.png" in pairing.unmatched[0].error


def test_an_equal_path_wins_over_another_suffix(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", "x.mp4", "x.png")
    b = tree(tmp_path / "b", "x.png", "x.mkv")
    pairs = {p.name: p.reconstruction.name for p in pair_directories(a, b).pairs}
    assert pairs == {"x.mp4": "x.mkv", "x.png": "x.png"}


def test_nothing_to_pair_is_an_error_that_counts(tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a", "x.mp4"), tree(tmp_path / "b", "y.mp4", "z.mp4")
    with pytest.raises(InputError, match=r"1 video or image.*2 videos and images.*no pair"):
        pair_directories(a, b)


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    a = tree(tmp_path, "x.mp4")
    with pytest.raises(InputError, match=r"expected a directory, got .*x\.mp4"):
        pair_directories(a / "x.mp4", a)

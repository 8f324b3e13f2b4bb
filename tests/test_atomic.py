import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from wfvae_cli.atomic import (
    atomic_file,
    atomic_folder,
    atomic_path,
    check_not_input,
    check_output,
    output_error,
)
from wfvae_cli.errors import InputError, OutputError


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_name_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "z.bin"
    with atomic_file(target) as file:
        file.write(b"whole")
        file.flush()
        assert not target.exists()
        (part,) = names(tmp_path)
        assert part.startswith(".z.bin.")
        assert part.endswith(".part")
    assert target.read_bytes() == b"whole"
    assert names(tmp_path) == ["z.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, BrokenPipeError])
def test_nothing_is_left_by_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_file(tmp_path / "z.bin") as file:
        file.write(b"half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [atomic_path, atomic_folder])
def test_a_signal_at_the_moment_of_creation_leaves_nothing(
    make: Callable[[Path], AbstractContextManager[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = os.open

    def interrupted(path: str, flags: int, mode: int = 0o777) -> int:
        os.close(create(path, flags, mode))
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), make(tmp_path / "z.bin"):
        pytest.fail("the body must not begin")
    assert names(tmp_path) == []


def test_a_disk_that_is_full_at_the_moment_of_creation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(os, "open", full)
    with (
        pytest.raises(OutputError, match=r"z\.bin: .*free some space"),
        atomic_path(tmp_path / "z.bin"),
    ):
        pytest.fail("the body must not begin")


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "z.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(target, overwrite=True) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["z.bin"]


def test_existing_is_refused_without_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "z.bin"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        check_output(target)
    with pytest.raises(OutputError, match="exists already"), atomic_file(target):
        pytest.fail("the body must not run")
    with atomic_file(target, overwrite=True) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "z.bin"
    with pytest.raises(OutputError, match="exists already"), atomic_file(target) as file:
        file.write(b"mine")
        target.write_bytes(b"somebody else's")
    assert target.read_bytes() == b"somebody else's"
    assert names(tmp_path) == ["z.bin"]


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"directory .* does not exist; create it"):
        check_output(tmp_path / "no" / "z.bin")


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a directory"):
        check_output(tmp_path / "file" / "z.bin")


def test_target_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        check_output(tmp_path, overwrite=True)


def test_directory_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permission bits do not bind the superuser, as whom tests may run.
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK))
    with pytest.raises(OutputError, match="no permission to write"):
        check_output(tmp_path / "z.bin")


def test_stdout_always_passes() -> None:
    check_output("-")


def test_devices_are_written_in_place() -> None:
    null = Path(os.devnull)
    check_output(null)
    with atomic_file(null) as file:
        file.write(b"gone")
    assert stat.S_ISCHR(null.stat().st_mode)


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to("real.bin")
    with atomic_file(link, overwrite=True) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "real.bin").read_bytes() == b"new"


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "z.bin") as file:
            file.write(b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "z.bin").stat().st_mode) == 0o640


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".bin")
    with atomic_path(target) as part:
        part.write_bytes(b"1")
    assert target.read_bytes() == b"1"


def test_a_folder_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "f%d.png"
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from wfvae_cli.atomic import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'f1.png').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert len(names(tmp_path)) == 1
    with atomic_folder(tmp_path / "other%d.png"):
        assert len(names(tmp_path)) == 2, "another series' leftovers are its own"
    with atomic_folder(target) as first:
        assert names(tmp_path) == [first.name]
        with atomic_folder(target) as second:
            assert names(tmp_path) == sorted((first.name, second.name)), "one in use is kept"
    assert names(tmp_path) == []


def test_a_link_in_place_of_a_leftover_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "f%d.png"
    with atomic_folder(target) as folder:
        name = folder.name
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / ".lock").touch()
    (tmp_path / name).symlink_to(victim)
    with atomic_folder(target):
        pass
    assert names(tmp_path) == sorted((name, "victim"))
    assert names(victim) == [".lock"]


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bad input"), atomic_file(tmp_path / "z.bin"):
        raise InputError("bad input")
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "z.bin"):
        (tmp_path / "unrelated").read_bytes()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "size limit"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_messages(number: int, words: str) -> None:
    error = output_error("z.bin", OSError(number, os.strerror(number)))
    assert words in str(error)
    assert "z.bin" in str(error)
    assert error.exit_code == 5


def test_full_disk(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from wfvae_cli.atomic import atomic_file\n"
        "from wfvae_cli.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with atomic_file(sys.argv[1]) as file:\n"
        "        for _ in range(100): file.write(bytes(1000))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "z.bin")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "size limit" in done.stdout
    assert done.stderr == ""
    assert names(tmp_path) == []


def test_a_killed_runs_part_is_removed_by_the_next_one(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal\n"
        "from wfvae_cli.atomic import atomic_file\n"
        "with atomic_file(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / ("x" * 100 + ".bin")
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    other = tmp_path / ("x" * 100 + ".bin2")
    subprocess.run([sys.executable, "-c", code, str(other)], check=False)
    assert len(names(tmp_path)) == 2
    with atomic_file(target) as file:
        file.write(b"whole")
    remaining = [name for name in names(tmp_path) if name != target.name]
    assert len(remaining) == 1, "another output's is not ours to judge"


def test_a_part_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "z.bin"
    with atomic_path(target) as first:
        first.write_bytes(b"first")
        with atomic_path(target) as second:
            assert first.exists()
            assert second != first
            second.write_bytes(b"second")
        target.unlink()
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["z.bin"]


@pytest.mark.parametrize("how", ["name", "dots", "symbolic link", "hard link", "folder link"])
def test_an_output_that_is_an_input(tmp_path: Path, how: str) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"precious")
    (tmp_path / "here").symlink_to(tmp_path)
    link = tmp_path / "link.mp4"
    match how:
        case "name":
            link = source
        case "dots":
            link = tmp_path / "here" / ".." / tmp_path.name / "in.mp4"
        case "symbolic link":
            link.symlink_to(source)
        case "hard link":
            link.hardlink_to(source)
        case "folder link":
            link = tmp_path / "here" / "in.mp4"
    for output, given in ((link, source), (source, link)):
        with pytest.raises(OutputError, match="is the input") as caught:
            check_not_input([None, "-", output], [None, "other.mp4", str(given)])
        assert caught.value.exit_code == 5
    check_not_input([tmp_path / "new.mp4", os.devnull, tmp_path], [source, os.devnull, tmp_path])


def test_an_output_that_is_standard_input(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"precious")
    code = (
        "import sys; from wfvae_cli.atomic import check_not_input\n"
        "check_not_input([sys.argv[1]], ['-'])"
    )
    for stdin, fails in ((source.open("rb"), True), (subprocess.DEVNULL, False)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(source)], stdin=stdin, capture_output=True, check=False
        )
        assert (b"is the input" in done.stderr) is fails

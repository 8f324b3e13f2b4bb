import hashlib
import http.server
import io
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wfvae_cli.errors import MissingExtraError, WeightsError
from wfvae_cli.metrics.extras import load_tensors, published_weights, require


class Harmful:
    """Unpickles by creating a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def state_bytes() -> bytes:
    file = io.BytesIO()
    torch.save({"features.0.weight": torch.arange(6.0)}, file)
    return file.getvalue()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Serve a folder on this machine; PyTorch's cache is another one."""
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # type: ignore[arg-type]  # http.server's

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_missing_module_names_itself_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"LPIPS needs torchvision.*'wfvae\[metrics\]'"):
        require("torchvision", extra="metrics", purpose="LPIPS")


def test_a_missing_dependency_of_a_module_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "companion.py").write_text("import absent_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="FID needs absent_dependency"):
        require("companion", extra="metrics", purpose="FID")


def test_published_weights_are_downloaded_once(site: tuple[str, Path], tmp_path: Path) -> None:
    address, root = site
    content = state_bytes()
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (root / name).write_bytes(content)
    path = published_weights(f"{address}/{name}", option="--weights FILE")
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / name
    assert path.read_bytes() == content
    (root / name).unlink()
    assert published_weights(f"{address}/{name}", option="--weights FILE") == path


def test_a_download_of_other_content_is_refused(site: tuple[str, Path], tmp_path: Path) -> None:
    address, root = site
    (root / "net-00000000.pth").write_bytes(state_bytes())
    with pytest.raises(WeightsError, match=r"cannot download .*hash"):
        published_weights(f"{address}/net-00000000.pth", option="--weights FILE")
    assert list((tmp_path / "torch" / "hub" / "checkpoints").iterdir()) == []


def test_offline_the_message_says_which_file_to_put_where(
    site: tuple[str, Path], tmp_path: Path
) -> None:
    url = f"{site[0]}/net-12345678.pth"
    with pytest.raises(WeightsError) as caught:
        published_weights(url, option="--weights FILE")
    message = str(caught.value)
    assert f"download {url} elsewhere" in message
    assert str(tmp_path / "torch" / "hub" / "checkpoints" / "net-12345678.pth") in message
    assert "--weights FILE" in message


def test_weights_that_are_code_are_never_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "bad.pth", tmp_path / "trace"
    torch.save({"w": Harmful(trace)}, path)
    with pytest.raises(WeightsError, match=r"bad\.pth .*: take another"):
        load_tensors(path, remedy="take another")
    path.write_bytes(pickle.dumps(Harmful(trace), protocol=2))
    with pytest.raises(WeightsError):
        load_tensors(path, remedy="take another")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no weights at all", state_bytes()[:200]])
def test_damaged_weights_are_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot read the weights"):
        load_tensors(path, remedy="take another")


def test_what_is_no_state_dict_is_an_error(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="expected tensors by name"):
        load_tensors(tmp_path / "list.pth", remedy="take another")

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.metrics.test_clip import clips
from wfvae_cli.errors import MissingExtraError, WeightsError
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.lpips import Backbone, Lpips


@pytest.fixture(autouse=True)
def module() -> Any:
    """The module of torchmetrics, imported when a test runs: it takes seconds."""
    return pytest.importorskip("torchmetrics.functional.image.lpips", exc_type=ImportError)


def alexnet_features() -> nn.Sequential:
    """Build AlexNet's convolutions, numbered as torchvision numbers them."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )


@pytest.fixture
def features() -> nn.Sequential:
    torch.manual_seed(0)
    return alexnet_features()


@pytest.fixture
def weights(tmp_path: Path, features: nn.Sequential) -> Path:
    """Write a state dict as torchvision publishes it, classifier included."""
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    path = tmp_path / "alexnet.pth"
    torch.save({**state, "classifier.1.weight": torch.zeros(4, 4)}, path)
    return path


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Stand in for torchvision, whose builds often do not fit the torch that is installed."""

    def random_features(net: str, pretrained: bool = False) -> nn.Sequential:
        assert net == "alexnet" and not pretrained
        return alexnet_features()

    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setattr(module, "_get_tv_model_features", random_features)


def reference(module: Any, features: nn.Sequential, x: np.ndarray, y: np.ndarray) -> float:
    """Compute LPIPS as its paper has it, with the linear layers that torchmetrics ships."""
    folder = Path(str(module.__file__)).parent / "lpips_models"
    linear = torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)

    def activations(pixels: np.ndarray) -> list[Tensor]:
        h = torch.from_numpy(pixels.astype(np.float32) / 255 * 2 - 1)
        h, found = (h.permute(2, 0, 1)[None] - shift) / scale, []
        for index, layer in enumerate(features):
            h = layer(h)
            if index in (1, 4, 7, 9, 11):
                found.append(h / (h.square().sum(1, keepdim=True) + 1e-8).sqrt())
        return found

    total = 0.0
    with torch.no_grad():
        for level, (a, b) in enumerate(zip(activations(x), activations(y), strict=True)):
            weight = linear[f"lin{level}.model.1.weight"]
            total += float(((a - b).square() * weight).sum(1).mean())
    return total


@pytest.mark.usefixtures("torchvision")
def test_local_weights_give_the_papers_distance(
    module: Any, features: nn.Sequential, weights: Path
) -> None:
    x, y = (clip[0] for clip in clips(1, height=70, width=90))
    distance = Lpips(weights=weights)(x, y)
    assert distance == pytest.approx(reference(module, features, x, y), rel=1e-4)
    assert distance is not None and distance > 1e-6
    deep = y.astype(np.uint16) * np.uint16(257)
    assert Lpips(weights=weights)(x, deep) == pytest.approx(distance, rel=1e-4)


@pytest.mark.usefixtures("torchvision")
def test_every_frame_of_a_clip_is_scored(weights: Path) -> None:
    lpips = Lpips(weights=weights)
    x, y = clips(2, height=40, width=40)
    metrics = ClipMetrics(lpips=lpips)
    for original, reconstruction in zip(x, y, strict=True):
        metrics.update(original, reconstruction)
    expected = [lpips(a, b) for a, b in zip(x, y, strict=True)]
    assert [frame.lpips for frame in metrics.result().per_frame] == expected
    assert lpips(x[0], x[0]) == 0


@pytest.mark.usefixtures("torchvision")
def test_frames_that_pooling_would_swallow_have_no_distance(weights: Path) -> None:
    lpips = Lpips(weights=weights)
    for side, defined in ((30, False), (31, True)):
        x, y = (clip[0] for clip in clips(1, height=side, width=64))
        assert (lpips(x, y) is not None) == defined


@pytest.mark.usefixtures("torchvision")
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(
        WeightsError, match=r"expected features\.0\.weight of shape \(64, 3, 11, 11\)"
    ):
        Lpips(weights=path)
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"got nothing: give alexnet-owt-7be5be79\.pth"):
        Lpips(weights=path)


def test_without_torchvision_the_message_names_the_extra(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"LPIPS needs torchvision"):
        Lpips(weights=weights)


def test_real_torchvision_networks_fit(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    x, y = (clip[0] for clip in clips(1, height=40, width=40))
    networks: tuple[tuple[Backbone, Any], ...] = (("alex", models.alexnet), ("vgg", models.vgg16))
    for net, build in networks:
        torch.save(build(weights=None).state_dict(), tmp_path / "net.pth")
        distance = Lpips(net=net, weights=tmp_path / "net.pth")(x, y)
        assert distance is not None and distance > 0

"""Models, scale and dtype of the latents that each trainer behind `--format` expects.

Read in the trainers' own loaders: musubi-tuner's `dataset/cache_io.py` and `*_cache_latents.py`,
`ltx_trainer/datasets.py` of LTX-2, `helpers/caching/vae.py` of SimpleTuner, `wan_taskencoder.py` of
NVIDIA's DFM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wfvae_cli.errors import UsageError
from wfvae_cli.latents.header import LatentDtype

Content = Literal["normalised", "raw"]
"""The posterior's mean after the model's shift and scale, or as the model gives it."""


@dataclass(frozen=True)
class TrainerFormat:
    """One trainer's cache, as far as its content depends on the model."""

    trainer: str
    families: Mapping[str, Content] | None
    """Content by family of the models that the trainer knows; None takes every family,
    normalised."""
    dtype: LatentDtype = "bfloat16"

    def content_of(self, family: str, model: str) -> Content:
        """Return the content that the trainer expects of a model's latents.

        Args:
            family: of the model.
            model: what messages call it.

        Raises:
            UsageError: the trainer trains on no latents of this family.
        """
        if self.families is None:
            return "normalised"
        if family not in self.families:
            raise UsageError(
                f"{self.trainer} trains on latents of {', '.join(self.families)}, but {model} is "
                f"of the family {family}: give one of these models with --model, or choose another "
                "--format"
            )
        return self.families[family]


TRAINER_FORMATS: Mapping[str, TrainerFormat] = {
    "musubi": TrainerFormat(
        "musubi-tuner",
        {"wan": "normalised", "qwenimage": "normalised", "hunyuanvideo15": "raw"},
    ),
    "ltx": TrainerFormat("the LTX-2 trainer", {"ltx2": "normalised"}),
    "simpletuner": TrainerFormat(
        "SimpleTuner", {"wan": "normalised", "wan22": "normalised", "ltx2": "normalised"}
    ),
    "energon": TrainerFormat("Energon", None),
}
"""Trainer formats by their name in `--format`."""

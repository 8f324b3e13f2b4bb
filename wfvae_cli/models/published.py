"""The models that have a name: where they are published, and what is known without their files."""

from __future__ import annotations

from dataclasses import dataclass

from wfvae_cli.strides import ClipLengths, Progression, Strides


@dataclass(frozen=True)
class HubSource:
    """A folder of a model repository on the Hugging Face Hub."""

    repo: str
    subfolder: str = ""
    revision: str | None = None
    """Branch, tag or commit; None for the default branch."""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{'/' if self.subfolder else ''}{self.subfolder}{revision}"


@dataclass(frozen=True)
class PublishedModel:
    """A checkpoint that has a name here."""

    name: str
    family: str
    """`VideoVAE.family` of its class."""
    strides: Strides
    channels: int
    """Channels of its latents."""
    source: HubSource | None = None
    """None for a model that comes with this package."""
    licence: str | None = None
    """None where no source at hand says it."""
    parameters: int | None = None
    """Weights without the Haar filters, which are constants; None where not known."""
    pickle: str | None = None
    """The file in `source` that has to go through `wfvae convert`; None if it is safetensors."""


# Where each entry is from, if not from a model card of its own repository:
# - wf-vae-l-16chn: README of PKU-YuanGroup/WF-VAE (16 channels, 316 M, Apache-2.0), which links
#   the repository; it holds config.json and diffusion_pytorch_model.safetensors at its root.
# - open-sora-plan-v1.3: README of PKU-YuanGroup/Open-Sora-Plan links `tree/main/vae`, and issue
#   556 there says that it is the 8-channel 4x8x8 model; examples/opensora_pku/README.md of
#   mindspore-lab/mindone converts its `vae/merged.ckpt` with `vae/config.json`.
# - wan-2.1: diffusers' page on AutoencoderKLWan loads this repository's folder `vae`; it is the one
#   VAE of all Wan 2.1 models, of Wan 2.2's of 14 B and of SkyReels-V2; Apache-2.0 says a third
#   party's copy of it, its own card was not at hand.
# - wan-2.2: README of Wan-Video/Wan2.2 (Apache-2.0); the config of its VAE in repositories that
#   were made from it names this one.
# - qwen-image: README of QwenLM/Qwen-Image (Apache-2.0); diffusers' pipelines load it.
# - ltx-2, hunyuanvideo-1.5, cogvideox, mochi-1: diffusers' pages on their classes load these. The
#   licence of LTX-2 is what the card of LTX-2.5 calls that of LTX-2.x; HunyuanVideo's are on the
#   cards of tencent/HunyuanVideo and HunyuanVideo-1.5, of which the repositories are conversions;
#   CogVideoX-2B's is in the README of THUDM/CogVideo, which says that it holds for its VAE.
# - hunyuanvideo, ltx-video, flux-1, dc-ae: diffusers' pipelines load them.
# - flux-2: the config of copies of it names this repository; README of black-forest-labs/flux2
#   (klein 4B is Apache-2.0, and so is the VAE of all of FLUX.2).
# - allegro: README of rhymes-ai/Allegro (Apache-2.0) links the repository; diffusers' pipeline
#   loads its folder `vae`.
# - minimax-h3: diffusers' modular pipeline loads this repository, and the config.json in its folder
#   `vae` is of AutoencoderKLMiniMaxH3; the licence is what the card of Comfy-Org's copy names.
# Open-Sora Plan v1.5's 8x8x8 VAE is not here: its README links LanguageBind/Open-Sora-Plan-v1.5.0
# without saying which of its files is the VAE. It loads by path once converted.
PUBLISHED: tuple[PublishedModel, ...] = (
    PublishedModel(
        "wfvae-tiny", "wfvae", Strides(4, 8, 8), 16, licence="Apache-2.0", parameters=5_567_636
    ),
    PublishedModel(
        "wf-vae-l-16chn",
        "wfvae",
        Strides(4, 8, 8),
        16,
        HubSource("chestnutlzj/WF-VAE-L-16Chn"),
        "Apache-2.0",
        317_081_244,
    ),
    PublishedModel(
        "open-sora-plan-v1.3",
        "wfvae",
        Strides(4, 8, 8),
        8,
        HubSource("LanguageBind/Open-Sora-Plan-v1.3.0", "vae"),
        "MIT",
        145_576_652,
        pickle="merged.ckpt",
    ),
    PublishedModel(
        "wan-2.1",
        "wan",
        Strides(4, 8, 8),
        16,
        HubSource("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "vae"),
        "Apache-2.0",
        126_892_531,
    ),
    PublishedModel(
        "wan-2.2",
        "wan22",
        Strides(4, 16, 16),
        48,
        HubSource("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "vae"),
        "Apache-2.0",
        704_688_668,
    ),
    PublishedModel(
        "qwen-image",
        "qwenimage",
        Strides(4, 8, 8),
        16,
        HubSource("Qwen/Qwen-Image", "vae"),
        "Apache-2.0",
        126_892_531,
    ),
    PublishedModel(
        "ltx-2",
        "ltx2",
        Strides(8, 32, 32),
        128,
        HubSource("Lightricks/LTX-2", "vae"),
        "LTX-2.x Community",
    ),
    PublishedModel(
        "hunyuanvideo-1.5",
        "hunyuanvideo15",
        Strides(4, 16, 16),
        32,
        HubSource("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v", "vae"),
        "Tencent Hunyuan Community",
        1_260_634_115,
    ),
    PublishedModel(
        "hunyuanvideo",
        "hunyuanvideo",
        Strides(4, 8, 8),
        16,
        HubSource("hunyuanvideo-community/HunyuanVideo", "vae"),
        "Tencent Hunyuan Community",
        246_478_803,
    ),
    PublishedModel(
        "cogvideox",
        "cogvideox",
        Strides(4, 8, 8),
        16,
        HubSource("THUDM/CogVideoX-2b", "vae"),
        "Apache-2.0",
        215_583_907,
    ),
    PublishedModel(
        "ltx-video", "ltx", Strides(8, 32, 32), 128, HubSource("Lightricks/LTX-Video", "vae")
    ),
    PublishedModel(
        "mochi-1",
        "mochi",
        Strides(6, 8, 8),
        12,
        HubSource("genmo/mochi-1-preview", "vae"),
        "Apache-2.0",
        459_748_611,
    ),
    PublishedModel(
        "allegro",
        "allegro",
        Strides(
            4,
            8,
            8,
            clips=ClipLengths(Progression(24, 16), Progression(6, 4)),
            heights=Progression(320, 200),
            widths=Progression(320, 240),
        ),
        4,
        HubSource("rhymes-ai/Allegro", "vae"),
        "Apache-2.0",
        174_955_751,
    ),
    PublishedModel(
        "minimax-h3",
        "minimax-h3",
        Strides(
            4,
            16,
            16,
            clips=ClipLengths(Progression(22, 17), Progression(7, 5)),
            heights=Progression(32, 16),
            widths=Progression(32, 16),
        ),
        24,
        HubSource("MiniMaxAI/MiniMax-H3", "vae"),
        "MiniMax-H3 Community",
        2_603_868_984,
    ),
    PublishedModel(
        "flux-2",
        "flux2",
        Strides(1, 16, 16),
        128,
        HubSource("black-forest-labs/FLUX.2-klein-4B", "vae"),
        "Apache-2.0",
        84_046_115,
    ),
    PublishedModel(
        "flux-1",
        "kl",
        Strides(1, 8, 8),
        16,
        HubSource("black-forest-labs/FLUX.1-schnell", "vae"),
        parameters=83_819_683,
    ),
    PublishedModel(
        "dc-ae",
        "dc",
        Strides(1, 32, 32),
        32,
        HubSource("mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers"),
    ),
    PublishedModel(
        "taesd", "tiny", Strides(1, 8, 8), 4, HubSource("madebyollin/taesd"), "MIT", 2_445_063
    ),
    *(
        PublishedModel(
            name, "kl", Strides(1, 8, 8), 4, HubSource(f"stabilityai/{name}"), "MIT", 83_653_863
        )
        for name in ("sd-vae-ft-mse", "sd-vae-ft-ema", "sdxl-vae")
    ),
)


def find_published(name: str) -> PublishedModel | None:
    """Find the model that is called `name`; None where none is."""
    return next((entry for entry in PUBLISHED if entry.name == name), None)

"""Tar shards for NVIDIA's Energon (https://github.com/NVIDIA/Megatron-Energon), as DFM reads them.

A clip is members of one key: `KEY.pth`, `torch.save` of `[C, T, H, W]` bfloat16, normalised;
`KEY.json`, how many frames and pixels were encoded, caption and columns, and the strings of a
latent file's header; and `KEY.txt`, its caption, if it has one.
DFM's `WanTaskEncoder` wants the text's embedding as `KEY.pickle`, too, which is not written here.
"""

from __future__ import annotations

import io
from pathlib import Path

from typing_extensions import override

from wfvae_cli.dataset.exporters.base import Written
from wfvae_cli.dataset.exporters.content import check_content
from wfvae_cli.dataset.exporters.pt_file import is_sound, save_object
from wfvae_cli.dataset.exporters.webdataset import TarShards, text_members
from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.pipeline.encode import LatentOutput
from wfvae_cli.pipeline.options import EncodeOptions


class EnergonShards(TarShards):
    """The shards of one run, to be prepared with `energon prepare`."""

    @override
    def open(
        self, item: Item, metadata: LatentMetadata, options: EncodeOptions
    ) -> LatentOutput[Written]:
        check_content(self.how.format, metadata)
        return super().open(item, metadata, options)

    @override
    def verify(self, shard: Path) -> None:
        """Check that a shard holds its clips, and that these match `torch.save`'s checksums."""
        from wfvae_cli.dataset.training import tar_members

        with shard.open("rb") as file:
            for member in tar_members(shard, ".pth"):
                file.seek(member.begin)
                if not is_sound(io.BytesIO(file.read(member.size or 0))):
                    raise LatentError(f"{shard}: {member.item} is damaged")

    @override
    def members(self, item: str, path: Path) -> dict[str, bytes]:
        """Return the members of a clip by their suffix, made of its latent file."""
        target = io.BytesIO()
        with LatentFile(path) as file:
            info, strings = file.metadata, file.metadata.to_strings()
            save_object(file.read(), target, {})
        fields = {
            "item": item,
            "processed_frames": info.frames + info.pad_frames,
            "processed_height": info.height + info.pad_bottom,
            "processed_width": info.width + info.pad_right,
        }
        return {"pth": target.getvalue(), **text_members({**strings, **fields})}

"""Clip to latents to clip: the streaming pipelines that commands and workers call."""

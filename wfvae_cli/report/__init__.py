"""Pages and plots that people look at: what a VAE loses, and what its latents look like.

- `report.Report` fills a folder that opens in any browser, offline; `clip.ReportClip` takes the
  frames of one clip while they pass.
- `metric_plots`, `latent_plot` and `subband_plot` draw with matplotlib (extra `plot`), in the one
  style of `figure`.
- `tracking` logs scores to TensorBoard and Weights & Biases.
"""

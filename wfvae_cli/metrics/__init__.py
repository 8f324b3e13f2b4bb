"""Metrics of a roundtrip's losses: PSNR, SSIM, MS-SSIM, flicker, LPIPS and Fréchet distances.

Conventions, the same everywhere in this package:

- Pixels are what a player shows: RGB, integer, after clamping and rounding; 8-bit samples have
  a data range of 255, deeper ones of 65535 (a clip of each is compared over the deeper range).
- `psnr` is the mean over frames of each frame's PSNR in decibels, as the VAE papers report it;
  `psnr_mse` is the PSNR of the mean squared error of the whole clip.
- PSNR of identical frames is infinite: it is left out of means and counted
  (`identical_frames`), unless every frame is identical. JSON spells it `"inf"`.
- `ssim` is Wang et al. 2004: Gaussian window of 11x11 and sigma 1.5, K1 = 0.01, K2 = 0.03,
  population covariance, over whole windows only, per RGB channel and then averaged.
- `ms_ssim` is Wang et al. 2003: five scales, the same window.
- `flicker_psnr` is the PSNR of frame differences (`x_t - x_(t-1)`), whose peak is the data range.
- What is not defined (SSIM of a frame below 11x11 pixels, MS-SSIM below 176x176, flicker of
  one frame) is `None`, in JSON `null`, and left out of means.
"""

"""Measurements of a latent space: streaming statistics, scale factors and wavelet subbands."""

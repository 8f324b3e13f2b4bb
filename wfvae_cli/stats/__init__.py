"""What a latent space looks like: streaming statistics, scale factors and wavelet subbands."""

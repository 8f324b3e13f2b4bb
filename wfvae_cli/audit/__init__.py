"""Audits of latent caches: what is in them, whether it is right, and what went wrong where not."""

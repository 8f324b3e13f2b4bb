"""Audits of latent caches: their contents, and the mistakes that were made in them."""

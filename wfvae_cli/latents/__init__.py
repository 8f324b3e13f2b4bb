"""The latent file: a safetensors file with all the metadata that decoding or training needs.

Layout, by safetensors' own rules (https://github.com/huggingface/safetensors#format):

    pts      int64 [frames]         only for a variable frame rate, in units of `time_base`
    latents  [Z, T', H', W']        float32, float16 or bfloat16
    logvar   [Z, T', H', W']        only for posterior `moments`, in the latents' dtype

and the strings of `LatentMetadata` in `__metadata__`. `LatentFile` reads one, `LatentWriter`
writes one, and a file's bytes depend on nothing but its content.
"""

"""`python -m wfvae_cli`: the command line, where the `wfvae` script is not on the path."""

from wfvae_cli.cli import main

main()

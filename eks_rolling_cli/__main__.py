"""`python -m cli` is `eks-rolling`."""

from eks_rolling_cli.app import main

main()

"""`python -m cli` is `eks-rolling`."""

from cli.app import main

main()

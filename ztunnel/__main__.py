"""`python -m ztunnel` is the command `ztunnel`."""

from ztunnel.cli.main import main

if __name__ == "__main__":
    main()

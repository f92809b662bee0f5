"""`python -m unmask`, which torchrun needs."""

from unmask.cli.main import main

if __name__ == "__main__":
    main()

"""python -m heinfer: the command line."""

from heinfer.cli import main

if __name__ == "__main__":
    main()

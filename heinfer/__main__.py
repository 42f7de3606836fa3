"""python -m heinfer: the command line."""

from heinfer_cli import main

if __name__ == "__main__":
    main()

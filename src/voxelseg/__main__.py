"""`python -m voxelseg` is the command `voxelseg`."""

from voxelseg.cli import main

if __name__ == "__main__":
    main()

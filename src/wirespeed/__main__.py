"""`python -m wirespeed`: the `wirespeed` command, with the options of Python in front."""

from .cli import main

if __name__ == "__main__":
    main()

"""The `wirespeed` command."""


def main() -> None:
    """Run the command line; needs the `cli` extra."""
    raise SystemExit("the command line needs the cli extra: pip install 'wirespeed[cli]'")

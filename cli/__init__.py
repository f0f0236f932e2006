"""The command line: thin calls of public functions."""


def main() -> None:
    """Run the `gatewise` command."""
    from .app import run_app

    run_app()

"""`python -m envcheck`."""

from envcheck.cli.main import entry

if __name__ == "__main__":
    entry()

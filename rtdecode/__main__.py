"""``python -m rtdecode`` is the command ``rtdecode``."""

from rtdecode.cli.main import main

if __name__ == "__main__":
    main()

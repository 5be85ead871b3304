"""`python -m fssd`, the same as the `fssd` command; torchrun starts it this way."""

import sys

from fssd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

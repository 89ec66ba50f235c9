"""`python -m ductal` is `ductal`."""

from ductal.cli import main

if __name__ == "__main__":
    main()

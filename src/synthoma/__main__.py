"""`python -m synthoma` is the command `synthoma`."""

from synthoma.cli import main

if __name__ == "__main__":
    main()

"""`python -m synthoma` is the command `synthoma`."""

from synthoma.cli.main import main

if __name__ == "__main__":
    main()

"""The command `synthoma`, also as `python -m synthoma`: the parts that have to be right before anything is imported."""

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command. Nothing is imported from the working folder; Ctrl-C at any moment is one line."""
    try:
        if sys.platform == "win32":
            sys.exit(
                "synthoma runs on Linux and macOS; on Windows use it in WSL: `wsl --install`, then install it there"
            )
        _leave_working_folder()
        from synthoma.cli.main import run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("synthoma: interrupted; run the same command again to resume\n")
        sys.exit(INTERRUPTED)


def _leave_working_folder() -> None:
    """Off the import path with the folder that `python -m` puts there: data are opened in it, not code."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    here = os.getcwd()
    if __name__ == "__main__" and sys.path and sys.path[0] in ("", here) and here != home:
        del sys.path[0]


if __name__ == "__main__":
    main()

"""The blocks of code on the pages: which there are, which commands they give, and why some are not run.

A block with `<!-- not run: REASON -->` in the line above it needs what tests do not have. Its commands, options and
recipe keys are compared with the program all the same.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
# beginnings of commands that no test can follow to their end, and why
NEVER_RUN = {
    "pip ": "installs into the environment that the tests run in",
    "python3 -m venv": "makes an environment",
    "source ": "enters an environment",
    "make ": "sets up an environment, trains for minutes",
    "torchrun ": "several processes on several GPUs",
    "synthoma review": "serves pages until Ctrl-C, or needs what readers did there",
}
_BLOCK = re.compile(r"(?:<!-- not run: (.+?) -->\n+)?^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROGRAMS = ("synthoma ", *NEVER_RUN)


@dataclass(frozen=True)
class Block:
    """One block. not_run: the reason why it is only looked at; empty for one that is run."""

    page: str
    language: str
    text: str
    not_run: str

    @property
    def is_commands(self) -> bool:
        """Whether it is given to a shell: said so, or begun with a program's name."""
        return self.language == "bash" or (not self.language and self.text.lstrip().startswith(_PROGRAMS))

    def commands(self) -> list[str]:
        """Its lines without comments, those that go on in the next one joined."""
        joined = self.text.replace("\\\n", " ")
        lines = (re.sub(r"(^|\s+)#.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in their order."""
    return [Block(page, match[2], match[3], match[1] or "") for match in _BLOCK.finditer(PAGES[page])]


def said_in_full(command: str) -> list[str]:
    """Words of a command with all that its synopsis offers: `[--out REPORT]` is `--out REPORT`."""
    return _words("".join(part for part, _ in _parts(command)))


def said_in_short(command: str) -> list[str]:
    """Words of a command without what its synopsis only offers."""
    return _words("".join(part for part, offered in _parts(command) if not offered))


def _parts(command: str) -> list[tuple[str, bool]]:
    """The signs of a command, and whether each lies in brackets that begin after a space, which are left out."""
    parts, depth = [], 0
    for at, sign in enumerate(command):
        if sign == "[" and (depth or command[at - 1] == " "):
            depth += 1
            parts += [(sign, True)] if depth > 1 else []
        elif sign == "]" and depth:
            depth -= 1
            parts += [(sign, True)] if depth else []
        else:
            parts.append((sign, depth > 0))
    return parts


def _words(command: str) -> list[str]:
    """The words as a shell has them; of alternatives `a|b` the first, and no `DIR...`."""
    words = [word.partition("|")[0] for word in shlex.split(command)]
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if word and (not word.endswith("...") or before.startswith("--"))
    ]

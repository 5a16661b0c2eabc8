"""The README as a package index shows it: an index knows nothing of the files beside it.

With SYNTHOMA_URL (https://HOST/OWNER/synthoma, set by whoever publishes) pictures and links lead to that repository, at
the tag of the version, and the package names it. Without, pictures are their descriptions and links are plain words,
so nothing on the page is broken.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:)([^)]+)\)")


class ReadmeOfPackage(MetadataHookInterface):
    """What hatchling asks while it builds."""

    def update(self, metadata: dict[str, Any]) -> None:
        url = os.environ.get("SYNTHOMA_URL", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_index(text, url, f"v{metadata['version']}"),
        }
        metadata["urls"] = {"Repository": url, "Changelog": f"{url}/blob/main/CHANGELOG.md"} if url else {}


def for_index(text: str, url: str, tag: str) -> str:
    """The README with links that hold anywhere; url: of the repository, or empty."""
    if url:
        text = _PICTURE.sub(rf"![\1]({url}/raw/{tag}/\2)", text)
        return _LINK.sub(rf"[\1]({url}/blob/{tag}/\2)", text)
    return _LINK.sub(r"\1", _PICTURE.sub(r"*Picture: \1.*", text))

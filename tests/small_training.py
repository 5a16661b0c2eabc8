"""A training that takes a second: the recipe that tests of commands share."""

from __future__ import annotations

import re
from typing import Any

_TINY = """
organs = ["liver"]
healthy = ["*"]
steps = 2
batch = 1
validation = 0
[network]
name = "unet"
width = 4
depth = 3
residual_units = 0
[patches]
size = [16, 16, 16]
spacing_mm = 6.0
per_epoch = 4
"""


def tiny_training(**values: Any) -> str:
    """The recipe as TOML with some of its numbers changed."""
    text = _TINY
    for key, value in values.items():
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    return text

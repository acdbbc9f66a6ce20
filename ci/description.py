"""The README as the package index shows it: links and pictures relative to the repository become absolute.

A metadata hook of hatchling, called whenever a wheel or sdist is built. The project's home stands in `[project.urls]` of
`pyproject.toml` and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\]\((?!\w+:|#)(?P<path>[^)\s]+)\)")
_PICTURES = (".png", ".svg", ".gif")
_OF_THE_SITE = "../../"
"""GitHub resolves README links below `blob/main/`: this leads to the repository's own pages, such as its workflows."""


class Description(MetadataHookInterface):
    """Puts the README with absolute links into the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets the dynamic field `readme`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute(text, metadata["urls"]["Repository"]),
        }


def absolute(text: str, repository: str) -> str:
    """`text` with every relative link below `repository`."""

    def target(match: re.Match[str]) -> str:
        path = match["path"]
        if path.startswith(_OF_THE_SITE):
            return f"]({repository}/{path.removeprefix(_OF_THE_SITE)})"
        view = "raw" if path.endswith(_PICTURES) else "blob"
        return f"]({repository}/{view}/main/{path})"

    return _LINK.sub(target, text)

"""Prints the lowest versions that `pyproject.toml` declares, as a file of constraints for `pip install -c`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?>=(?P<version>[\w.]+)")
PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(project: Path = PROJECT) -> list[str]:
    """`name==version` of each dependency; those of the extras that users install too, `dev` is ours.

    A minimum such as "8.2" means its first release, which is what `==8.2.*` would not say.
    """
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = declared["optional-dependencies"]
    requirements = declared["dependencies"] + [
        each for name, extra in extras.items() if name not in {"all", "dev"} for each in extra
    ]
    found = (_REQUIREMENT.match(requirement) for requirement in requirements)
    return [f"{match['name']}=={match['version']}" for match in found if match]


if __name__ == "__main__":
    print("\n".join(lowest()))

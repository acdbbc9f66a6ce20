"""All cases by name: each of these modules registers its own."""

from growth_corpus import (  # noqa: F401 - imported for what they register
    caches,
    churn,
    leaking_containers,
    leaking_objects,
    leaking_resources,
    libraries,
)
from growth_corpus.case import CASES

__all__ = ["CASES"]

"""All cases by name: each of these modules registers its own."""

from growth_corpus import (  # noqa: F401 - imported for what they register
    caches,
    churn,
    leaking_containers,
    leaking_objects,
    leaking_resources,
)
from growth_corpus.case import CASES
from growth_corpus.libraries import (  # noqa: F401 - likewise
    data,
    documents,
    ends_unstated,
    extensions,
    kept_by_hand,
    long_lived,
    packages,
    programs,
    registries,
    services,
    standard_library,
    system_resources,
    warm_up,
)

__all__ = ["CASES"]

"""What makes a measured figure doubtful: a kind with its figures, and the one wording of each kind.

A caveat travels as data; its sentence is made by `str`, where it is shown. To ask about one, ask for its `kind`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.units import format_size

Kind = Literal[
    "mark-not-reset",
    "memory-not-readable",
    "process-missed",
    "sampled-from-inside",
    "helper-lost",
    "no-helper",
    "kept-small-blocks",
    "not-trimmed",
    "library-pool",
    "arrow-pool",
    "pool-at-end",
    "kept-by-threads",
    "shared-not-attributed",
    "swapped",
    "huge-pages-hidden",
    "children-not-seen",
    "children-not-readable",
    "thread-left-running",
    "result-not-sent",
    "command-not-watched",
    "benchmark-not-called",
    "collected-inside",
    "not-measured",
]


class Caveat(msgspec.Struct, frozen=True):
    """One doubt about a figure."""

    kind: Kind
    size_bytes: int = 0
    """The size that the kind speaks of; 0 where it speaks of none."""
    detail: str = ""
    """What else the sentence needs: a reason, or the name of a library."""

    def __str__(self) -> str:
        return _WORDING[self.kind].format(size=format_size(self.size_bytes), detail=self.detail)


_WORDING: dict[Kind, str] = {
    "mark-not-reset": (
        "this process's high-water mark cannot be reset here: a peak below the highest that it ever had lies between "
        "the two figures; measure_isolated sees it"
    ),
    "memory-not-readable": (
        "this process's memory could not be read (is /proc hidden, or is every descriptor in use?): the lower figure is "
        "what is proven all the same, the upper one comes from the highest that it ever had; children are in neither"
    ),
    "process-missed": (
        "a process ended before it could be read: its memory, at most {size}, is in the upper figure only"
    ),
    "sampled-from-inside": (
        "children were sampled from inside: what they held between two samples is in neither figure"
    ),
    "helper-lost": (
        "the helper process that watches children was lost: {detail}; children of this block were not seen"
    ),
    "no-helper": "{detail}",
    "kept-small-blocks": (
        "up to {size} of freed memory that Python kept before the start could be reused and is not in the peak; run it "
        "first or isolated to see that too"
    ),
    "not-trimmed": (
        "memory that was freed before the start could not be given back to the system (psutil.heap_trim is missing "
        "here), so the block may have reused it unseen"
    ),
    "library-pool": (
        "{detail} keeps freed memory for about a second: of up to {size} that it held at the start, in use or free, what "
        "was free could be reused and is not in the peak; run it isolated, or set "
        "_RJEM_MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0"
    ),
    "arrow-pool": (
        "pyarrow's own threads keep memory that they freed: up to {size} that was kept at the start could be reused and is "
        "not in the peak; run it isolated"
    ),
    "pool-at-end": "up to {size} of what is resident at the end is memory that {detail} keeps, free or in use",
    "kept-by-threads": (
        "{size} of the peak may be memory that threads had freed and malloc kept for them: how much it keeps depends on "
        "what ran before; run it isolated to compare"
    ),
    "shared-not-attributed": (
        "up to {size} of shared memory or of files in tmpfs came meanwhile, and other programs run here: whose it is cannot "
        "be told, so it is in the upper figure only"
    ),
    "swapped": (
        "the machine has swapped {size} out meanwhile: whose it is cannot be told, so it is in the upper figure only"
    ),
    "huge-pages-hidden": (
        "how many huge pages the machine hands out cannot be read here (is /proc/vmstat hidden?): a spike of them between "
        "two samples may be above the upper figure"
    ),
    "children-not-seen": (
        "programs were started that could not be watched: by the kernel's account of their page faults they held at most "
        "{size}, which is in the upper figure; what they left running is not"
    ),
    "children-not-readable": (
        "programs run that could not be watched, and nothing tells what they hold: the peak is at least this much, and the "
        "upper figure is the memory limit"
    ),
    "thread-left-running": (
        "its interpreter was ended {detail} after the answer: a thread that the function left running kept it from ending"
    ),
    "result-not-sent": "the result cannot travel between processes and was left behind ({detail})",
    "command-not-watched": (
        "the tree could not be watched ({detail}): the figure is the largest single process, by the kernel"
    ),
    "benchmark-not-called": "the test takes the fixture benchmark and did not call it, so that there was nothing to measure",
    "collected-inside": (
        "Python collected garbage inside the block that may have been there before: the block may have reused its memory, "
        "which is then not in the peak"
    ),
    "not-measured": (
        "this test could not be measured ({detail}): its peak is only known to be below the memory limit"
    ),
}

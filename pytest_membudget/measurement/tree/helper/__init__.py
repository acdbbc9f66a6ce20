"""The helper process that watches a process tree from outside. Standard library only.

It runs under `python -I -S`, knows nothing of the rest of the package, and is spoken to in lines of JSON. A thread
inside the measured process would starve while C code holds the interpreter's lock; a process does not.

1. `members` finds who belongs to the tree,
2. `table` reads each of them from /proc (`readings`), and what they map (`mappings`); `looks` and counts of `file_pages` are closer and
   dear; `rounds` takes one after the other,
3. `bounds` turns two consecutive rounds of readings into an interval for the memory of the whole tree: what changed
   (`changes`), anonymous memory (`families`, forks by `descent`), and what anybody may map (`mapped`),
4. `sessions` keeps the peak, the timeline and the shares of each open measurement; its upper figure is kept by `upper` and
   `crest`, what the kernel's own marks of children prove by `marks`,
5. `note` is where the measured process leaves word of a block without waking the helper, and
6. `loop` does all that as often as it is worth its cost, and answers.

All of 3 and 4 is pure: tests script their readings.
"""

"""The helper process that watches a process tree from outside. Standard library only.

It runs under `python -I -S`, knows nothing of the rest of the package, and is spoken to in lines of JSON. A thread
inside the measured process would starve while C code holds the interpreter's lock; a process does not.

1. `tree_members` finds who belongs to the tree,
2. `scan` reads each of them from /proc (`proc_reader`) again and again; samples of proportional sizes (`pss_sampling`) and counts
   of file pages (`pagemap`) are closer and dear,
3. `tree_bounds` turns two consecutive scans into an interval for the memory of the whole tree: what changed (`page_faults`),
   anonymous memory by fork groups (`anonymous_bounds`), and what any process may map,
4. `session` keeps the peak, the timeline and the shares of each open measurement, with the upper figure (`tree_bounds`) and
   memory that no process maps (`shared_memory`),
5. `shared_note` is where the measured process leaves word of a block without waking the helper,
6. `enforce_limits` ends what exceeds its limit, and
7. `main` does all that as often as it is worth its cost, and answers in the records of `messages`.

All of 3 and 4 is pure: tests script their readings.
"""

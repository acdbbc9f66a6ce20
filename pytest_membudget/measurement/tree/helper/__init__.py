"""The helper process that watches a process tree from outside. Standard library only.

It runs under `python -I -S`, knows nothing of the rest of the package, and is spoken to in lines of JSON. A thread
inside the measured process would starve while C code holds the interpreter's lock; a process does not.

1. `scan` finds who belongs to the tree, and reads each of them from /proc (`proc_reader`) again and again; samples of
   proportional sizes and counts of file pages (`sampling`) are closer and expensive,
2. `tree_bounds` turns two consecutive scans into an interval for the memory of the whole tree: what changed by page faults
   (`records`), anonymous memory by fork groups (`anonymous_bounds`), and what any process may map,
3. `session` keeps the peak, the timeline and the shares of each open measurement, with the upper figure (`tree_bounds`) and
   memory that no process maps (`shared_memory`), and
4. `main` does all that as often as it is worth its cost, ends what exceeds its limit, and answers in the records of `messages`;
   a block that starts no process leaves a note there without waking the helper.

All of 2 and 3 is pure: tests script their readings.
"""

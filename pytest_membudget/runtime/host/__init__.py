"""One budget for all programs of a user on this host.

1. `owners` tells one process from another, and a living one from a dead one;
2. `state` is what the programs share, as a file that `store` reads and replaces under a lock;
3. `ledger` applies the rules of `runtime.ledger` to it, after the dead have been taken out;
4. `book` is the face that a `MemorySemaphore` of `scope="host"` works with.
"""

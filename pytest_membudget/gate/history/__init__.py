"""A year of runs in one SQLite file, and what it says about each test.

1. `open_history` opens or makes the file, at the present version of its schema;
2. `History.add` keeps a report, once; `History.merge` takes over the runs of another file;
3. `History.runs`, `History.tests` and `History.series` read it back;
4. `find_trends` says of each test whether it is steady, jumped or crept.

The file is a cache that CI keeps between runs: it works without a server, and one writer waits for another.
"""

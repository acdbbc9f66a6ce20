"""Growth: does what a function holds grow with every call, and what is it that grows?

1. `rounds` calls the function, ever more often between two samples;
2. `figures` takes a sample: exact bytes and counts after a collection;
3. `stats.growth` decides from the samples: leak, clean, or not yet known;
4. for a leak, `culprits` and `resources` say who.

`task_heap` reads what a worker process holds after its tasks.
"""

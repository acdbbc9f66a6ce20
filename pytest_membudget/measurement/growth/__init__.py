"""Growth: does what a function holds grow with every call, and what is it that grows?

1. `check` is the door; `judge` goes on until it knows, or the time or what may pile up is used up; `repeat` calls the function between
   two samples;
2. `samples` takes a sample: exact bytes and counts after a collection, beside `foreign_memory` and `shared_files`;
   `caches` keeps out what only fills once;
3. `stats.growth` decides from the samples: leak, clean, or not yet known; `explanations` has what grows or grew without being a leak;
4. for a leak, `culprits` says who: allocation sites and types of objects.
"""

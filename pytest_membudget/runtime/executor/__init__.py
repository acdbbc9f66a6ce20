"""Run: finish every task, whatever happens, and never start one whose memory does not fit.

A task's way: `executor` makes it, `streams` or `batch` draw its input; `dispatcher` is the thread that owns the
`floor`. There it waits in `line` until `admission` says that it may start (the ledger, with the executor's own charges),
`crew` finds it a worker of the present level (`levels`), and `handover` sends it. A short task may wait in its worker for
the one before it (`pace`, `prefetch`).
A worker replies; `aftermath`, `replies` and `causes` decide between the result, one more attempt and a report.

`launcher` is the protocol of a level; `process_level`, `thread_level` and `sequential_level` are the answers to it.
`process_worker` is a worker process seen from outside, `worker` what runs inside, `travel` what passes between.
`dask_level` is the answer for a cluster: `dask_link` holds the conversation with its scheduler, `dask_reception` meets
its workers, each a `lent_worker`, and `cluster_side` is what runs inside them; `placement` and `cluster_dispatch` say
which call goes to whom.
"""

from pytest_membudget.runtime.workers.stale_modules import drop_forgotten_modules

drop_forgotten_modules()  # before any of the modules below imports multiprocessing

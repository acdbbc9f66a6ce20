"""Run: finish every task, whatever happens, and never start one whose memory does not fit.

A task's way: `executor` makes it, `streams`, `outcomes` or `batch` draw its input, `engine` joins the parts. A `driver` (a thread, or the
caller) brings it to the `scheduler`, which alone decides what becomes of it and is pure: events in, effects out. `state` holds what
it knows. The placement of the present level says which task starts next and where: `local_placement` by memory on this
machine, `cluster_placement` by the capacity of a cluster's workers. `retry_policy` words what follows a failed attempt,
`flow_control` says how many run at once, `charges` what a task is charged.
"""

from pytest_membudget.runtime.workers import drop_forgotten_modules

drop_forgotten_modules()  # before any of the modules below imports multiprocessing

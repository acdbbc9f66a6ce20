"""Run: finish every task, whatever happens, and never start one whose memory does not fit.

A task's way: `executor` takes its call (`calls`), `outcomes` or `batch` draw its input, `engine` joins the parts. A `driver` (a thread,
or the caller) brings it to the `scheduler`, which alone decides what becomes of it and is pure: events in, `effects` out, which are
carried out there. `state` holds what it knows. `flow_control` says how many tasks run at once and in which order, `charges` what a task is charged. The `placement` of
the present level says which task starts next and where: `local_placement` by memory on this machine, part of which workers retain, `cluster_placement` by the capacity of a cluster's workers. `retry_policy` says what follows a failed attempt,
and words it. Inputs that failed are written to `dead_letters`.
"""

from pytest_membudget.runtime.workers import drop_forgotten_modules

drop_forgotten_modules()  # before any of the modules below imports multiprocessing

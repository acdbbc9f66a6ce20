"""Run: finish every task, whatever happens, and never start one whose memory does not fit.

A task's way: `executor` takes its call (`calls`), `outcomes` or `batch` draw its input, `engine` joins the parts. A `driver` (a thread,
or the caller) brings it to the `scheduler`, which alone decides what becomes of it and is pure: events in, effects out. `state` holds
what it knows. `flow_control` says at which level tasks run and how many at once, `charges` what a task is charged. The placement of the
present level says which task starts next and where: `local_placement` by memory on this machine, of which workers hold what
`retained_memory` expects, `cluster_placement` by the capacity of a cluster's workers. `retry_policy` says what follows a failed attempt,
and words it. What became of a batch is in its `breakdown`, in `dead_letters` and in the file of inputs that are `done`.
"""

from pytest_membudget.runtime.workers import drop_forgotten_modules

drop_forgotten_modules()  # before any of the modules below imports multiprocessing

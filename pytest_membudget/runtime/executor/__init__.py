"""Run: finish every task, whatever happens, and never start one whose memory does not fit.

A task's way:

1. `executor` takes its call (`calls`); `outcomes` or `batch` draw its input; `charges` says what it is charged;
2. `engine` makes the task, and a `driver` (a thread, or the caller) brings it to the `scheduler`;
3. the `scheduler` alone decides what becomes of it and is pure: events in, effects out. `state` holds what it knows, and
   `flow_control` says how many tasks run at once and in which order;
4. it waits in the `task_queue`, which charges it; the `placement` of the present level says which task starts next and where:
   `local_placement` by the memory of this machine, of which `local_memory` keeps account, and as `slow_start` says where little
   is known of its function; `cluster_placement` by what the workers of a cluster offer;
5. `effects` are carried out: workers start, calls are sent, futures get their results;
6. `attempts` says what ends a task while it runs and what follows that, `worker_pool` when its worker is replaced; inputs that failed are written to `dead_letters`.
"""

from pytest_membudget.runtime.workers import drop_forgotten_modules

drop_forgotten_modules()  # before any of the modules below imports multiprocessing

"""Predict what a task will take, admit it when that fits, run it, and watch.

1. `prediction` says how many bytes a file will take, its category, its time limit, and how many workers fit;
2. `admission` decides who may start now: bytes against a budget, in order of arrival, for one process or the host;
3. `workers` starts and ends what runs a call: a process, a thread, or the caller; `cluster` has them on other machines;
4. `executor` runs tasks to their end, whatever happens to their workers;
5. `monitoring` watches memory while work goes on, cleans up in time and gives advice.
"""

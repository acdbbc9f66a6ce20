"""The machine: memory limits, control groups, cores, and what identifies it."""

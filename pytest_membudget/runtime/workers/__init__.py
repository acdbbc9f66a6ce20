"""A worker and where it comes from: a process, a fork server, a thread, or the caller."""

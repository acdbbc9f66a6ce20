"""Watch a long job, clean up, advise."""

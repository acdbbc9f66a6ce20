"""The end of a session: collect, show, write."""

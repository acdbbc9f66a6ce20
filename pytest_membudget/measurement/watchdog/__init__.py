"""Limits while a block runs: notice, show what it did, and end it."""

"""Bytes expected of an input."""

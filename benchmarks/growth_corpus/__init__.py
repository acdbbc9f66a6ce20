"""Functions that leak and functions that only look like it, for the figures of docs/growth.md.

Each case is made by a function of a random number generator and returns what is to be called again and again.
"""

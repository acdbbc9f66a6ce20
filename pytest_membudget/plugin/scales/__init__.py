"""Tests that run the same job at several sizes."""

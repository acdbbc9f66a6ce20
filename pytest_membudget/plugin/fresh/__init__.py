"""Tests that run in an interpreter of their own."""

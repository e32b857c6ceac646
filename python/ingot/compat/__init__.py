"""Interfaces of other attention packages, computed by ingot."""

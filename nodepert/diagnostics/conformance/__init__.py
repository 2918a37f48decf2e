"""Conformance tests of rules and networks; the public door is nodepert/testing.py."""

"""Conformance tests of rules and networks; import them from nodepert.testing."""

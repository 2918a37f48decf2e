"""One training task as pure functions, and many replicas of it in one compiled program."""

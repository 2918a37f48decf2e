"""Learning rules, one file per family. Each is a factory `rule(model, loss, *, ...) -> Rule`; start with `node.py`."""

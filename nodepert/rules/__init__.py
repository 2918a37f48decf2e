"""Learning rules, one file per family. Each is `factory(model, loss, *, ...) -> Rule`; begin with `node.py`."""

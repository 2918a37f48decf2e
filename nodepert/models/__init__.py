"""Networks, one file per family. Each is `factory(input_shape, classes, *, ...) -> Model`."""

"""Networks, one file per family. Each is a factory `network(input_shape, classes, *, ...) -> Model`."""

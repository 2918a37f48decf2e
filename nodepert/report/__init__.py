"""Reports of studies and experiments, as one HTML file or as Markdown."""

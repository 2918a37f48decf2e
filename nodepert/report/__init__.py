"""Reports of studies: what runs left, gathered as plain values, as one HTML file or as Markdown."""

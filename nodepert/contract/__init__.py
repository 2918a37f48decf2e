"""What losses and networks must satisfy: what targets are, one loss per example, and examples that never mix."""

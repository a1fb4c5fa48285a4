"""What is on the wire, as plain structs, and nothing else."""

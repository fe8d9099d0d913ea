"""Pages to read predictions by: one a case, and one of all; each a file that asks for nothing else."""

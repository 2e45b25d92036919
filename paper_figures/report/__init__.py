"""One HTML page of a study's results: figures, tables, verdicts, provenance; nothing is loaded from anywhere else."""

"""The command line: one module per verb, and one place that turns errors into exit codes."""

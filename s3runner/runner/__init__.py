"""The runner: submit a job, follow it to its end, sync its results. The CLI and Galaxy use it."""

"""s3runner as a job runner of Galaxy."""

"""s3runner: run containerised jobs whose files travel through S3 instead of a shared disk."""

__version__ = "0.1.0"

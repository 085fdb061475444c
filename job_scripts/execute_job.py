#!/usr/bin/env python3
"""Entry point of the worker image's containers: all of it is in s3runner.worker."""

import sys

from s3runner.worker.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m s3runner` is the command `s3runner`."""

from s3runner.cli.main import main

if __name__ == "__main__":
    main()

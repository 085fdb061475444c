"""`s3runner schema`: the JSON Schemas of the two files that people write."""

from __future__ import annotations

import json

import click

from s3runner.cli.options import json_option
from s3runner.jobfile import job_schema
from s3runner.settings import settings_schema

_SCHEMAS = {"job": job_schema, "settings": settings_schema}


@click.command("schema")
@click.argument("document", type=click.Choice(sorted(_SCHEMAS)))
@json_option
def command(*, document: str) -> int:
    """Print the JSON Schema of a job file or of the settings, for editors and checkers."""
    click.echo(json.dumps(_SCHEMAS[document](), indent=2))
    return 0

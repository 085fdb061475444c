"""`s3runner gc`: remove from the store what nobody needs any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from s3runner import wiring
from s3runner.cli.chosen import chosen_settings
from s3runner.cli.options import json_option, place_options
from s3runner.cli.rendering import show_count, show_size
from s3runner.cli.report import Invocation
from s3runner.errors import SettingsError, printable
from s3runner.model import StoreConfig
from s3runner.runner.gc import Garbage
from s3runner.runner.linked_directories import find_links
from s3runner.staging.layout import StoreLayout


@click.command("gc")
@place_options
@click.option("--dry-run", is_flag=True, help="Only show what would go, with sizes.")
@click.option(
    "--unlinked",
    "directories",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Also what links in DIR led to and no longer do, as of purged datasets; may be repeated.",
)
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    dry_run: bool,
    directories: tuple[str, ...],
) -> int:
    """Remove expired jobs, inputs that no job needs, and what crashes left behind.

    Nothing of a job that has not ended, or is to be kept, is touched, and nothing outside of the
    prefix in the settings.
    """
    if invocation.destination is not None and invocation.job_conf is None:
        raise SettingsError("gc is about a whole store: --destination goes with --job-conf only")
    settings, _ = chosen_settings(invocation)
    linked = find_links(directories)
    collector = replace(wiring.build_collector(settings, os.environ), linked=linked)
    garbage = collector.collect(dry_run=dry_run)
    invocation.document = document_of(garbage, collector.config, dry_run=dry_run)
    for line in lines_of(invocation.document):
        click.echo(line, err=True)
    return 0


def document_of(garbage: Garbage, config: StoreConfig, *, dry_run: bool) -> dict[str, Any]:
    """Return the object of `gc --json`."""
    layout = StoreLayout(config.prefix)
    return {
        "dry_run": dry_run,
        "bytes": garbage.size,
        "jobs": [
            {
                "job_id": job.job_id,
                "uri": config.uri(f"{layout.job(job.job_id).root}/"),
                "objects": job.objects,
                "size": job.size,
            }
            for job in garbage.jobs
        ],
        "blobs": [{"uri": config.uri(item.key), "size": item.size} for item in garbage.blobs],
        "uploads": [{"uri": config.uri(item.key), "size": item.size} for item in garbage.uploads],
        "probes": [{"uri": config.uri(item.key), "size": item.size} for item in garbage.probes],
        "marks": [{"uri": config.uri(item.key), "size": item.size} for item in garbage.marks],
    }


_KINDS = {"jobs": "job", "blobs": "blob", "uploads": "incomplete upload", "probes": "probe"}
_RARE_KINDS = {"marks": "unlinked mark"}


def lines_of(document: dict[str, Any]) -> Iterator[str]:
    """Yield what people read: each thing that would go, or the sum of what went."""
    kinds = _KINDS | {key: kind for key, kind in _RARE_KINDS.items() if document[key]}
    counts = ", ".join(show_count(len(document[key]), kind) for key, kind in kinds.items())
    verb = "would remove" if document["dry_run"] else "removed"
    yield f"s3runner: gc: {verb} {counts} ({show_size(document['bytes'])})"
    if document["dry_run"]:
        for key, kind in kinds.items():
            for item in document[key]:
                yield f"  {kind} {printable(item['uri'])} ({show_size(item['size'])})"

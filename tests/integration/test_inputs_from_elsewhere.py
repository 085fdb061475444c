"""Inputs that the head never reads, through the command: they arrive, and may not change."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import Desk, Ran
from conftest import S3Access
from service_rule import missing_service
from web_server import Served, WebServer, serving

from s3runner.staging.digest import PART
from s3runner.staging.parallel import THREADS

LARGE = os.urandom(PART + 4321)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serving() as server:
        yield server


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


def put(access: S3Access, key: str, body: bytes) -> str:
    access.open().put(key, lambda: iter((body,)), size=len(body), part_size=max(1, len(body)))
    return f"s3://{access.config.bucket}/{key}"


def s3fs_environment(access: S3Access) -> dict[str, str]:
    """Return the variable by which fsspec finds a store: its own way to be set up."""
    if importlib.util.find_spec("s3fs") is None:
        missing_service("s3fs", "it is not installed")
    options = {
        "endpoint_url": access.config.endpoint,
        "key": access.credentials.access_key,
        "secret": access.credentials.secret_key,
    }
    return {"FSSPEC_S3": json.dumps(options)}


def ended_after(
    desk: Desk, web: WebServer, url: str, change: Callable[[], object], **environment: str
) -> Ran:
    """Submit a job, let `change` happen before its pod reads `url`, and wait for its end.

    The pod's threads are kept busy by files that the server holds back meanwhile.
    """
    gates = {f"a{number}": web.put(f"/gate{number}", b"gate") for number in range(THREADS)}
    web.held = True
    job = desk.write_job(name="j", command="true", inputs={**gates, "z": url})
    done = desk.run("submit", job, **environment)
    assert done.code == 0, done.stderr
    change()
    web.let_go.set()
    return desk.run("wait", done.stdout.strip(), "--json")


def test_a_web_file_arrives_without_passing_the_head(desk: Desk, web: WebServer) -> None:
    url = web.put("/data/x.bin?signature=secret", LARGE)

    ran = desk.run_job(
        name="j", command="cp in out; wc -c <in", inputs={"in": url}, outputs=["out"]
    )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "j/out").read_bytes() == LARGE
    assert ran.json["phases"]["stage_in"]["bytes"] == 0
    assert ran.json["phases"]["fetch"]["bytes"] == len(LARGE)
    assert ran.json["phases"]["fetch"]["requests"] >= 2
    assert "secret" not in ran.stderr
    assert desk.keys("blobs/") == []


def test_plan_shows_what_the_pod_fetches_and_hides_the_query(desk: Desk, web: WebServer) -> None:
    url = web.put("/x?signature=secret", LARGE, etag=None)
    stored = put(desk.access, "data/y", b"four")
    job = desk.write_job(name="j", command="true", inputs={"x": url, "y": stored})

    planned = desk.run("plan", job)
    document = desk.run("plan", job, "--json").json

    assert planned.code == 0, planned.stderr
    assert "  fetch    x (16 MiB): " in planned.stderr
    assert f"{web.url('/x')}?… has no ETag" in planned.stderr
    assert "secret" not in planned.stderr + planned.stdout
    assert (document["bytes"], document["disk_bytes"]) == (0, len(LARGE) + 4)
    assert [(item["uri"], item["size"]) for item in document["elsewhere"]] == [
        (f"{web.url('/x')}?…", len(LARGE)),
        (stored, 4),
    ]
    assert set(web.methods) == {"HEAD"}
    warned = desk.run("submit", job)
    assert f"warning: {web.url('/x')}?… has no ETag: its time of change" in warned.stderr


def test_a_pod_on_this_machine_goes_through_the_same_proxy(desk: Desk, web: WebServer) -> None:
    web.files["http://far.example/x"] = Served(b"body")

    ran = desk.run(
        "run",
        desk.write_job(
            name="j",
            command="cp in out",
            inputs={"in": "http://far.example/x"},
            outputs=["out"],
        ),
        http_proxy=web.url(""),
        no_proxy="127.0.0.1",
    )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "j/out").read_bytes() == b"body"
    assert web.methods == ["HEAD", "GET"]


@pytest.mark.parametrize("new", [b"longer", b"edit"], ids=["another size", "other bytes"])
def test_a_web_file_that_changes_after_submission_is_an_input_failure(
    desk: Desk, web: WebServer, new: bytes
) -> None:
    url = web.put("/x?signature=secret", b"body")

    ended = ended_after(desk, web, url, lambda: web.put("/x?signature=secret", new))

    assert ended.code == 1
    assert (ended.json["outcome"], ended.json["code"]) == ("input_failed", 21)
    error = ended.json["error"]
    assert error["operation"] == "fetch"
    assert error["source"] == f"{web.url('/x')}?…"
    assert "expected 4 bytes" in error["reason"]
    assert f"found {len(new)} bytes" in error["reason"]
    assert "secret" not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"body", b"longer"), (b"body", b"edit"), (LARGE, b"short"), (b"", b"grown")],
    ids=["another size", "other bytes", "shorter than a part", "no longer empty"],
)
def test_an_object_that_changes_after_submission_is_an_input_failure(
    tmp_path: Path, s3_access: S3Access, web: WebServer, old: bytes, new: bytes
) -> None:
    desk = Desk(tmp_path, s3_access)
    url = put(s3_access, "elsewhere/x", old)

    ended = ended_after(desk, web, url, lambda: put(s3_access, "elsewhere/x", new))

    assert ended.code == 1
    assert (ended.json["outcome"], ended.json["code"]) == ("input_failed", 21)
    error = ended.json["error"]
    assert error["source"] == url
    assert f"expected {len(old)} bytes" in error["reason"]
    assert f"found {len(new)} bytes" in error["reason"]


@pytest.mark.parametrize("sandbox", ["", "none"])
def test_another_s3_is_read_through_s3fs(desk: Desk, rgw_access: S3Access, sandbox: str) -> None:
    put(rgw_access, "set/large", LARGE)
    put(rgw_access, "set/d/small", b"small")
    job = desk.write_job(
        name="j",
        command="cat in/large in/d/small >out",
        inputs={"in": f"fs+s3://{rgw_access.config.bucket}/set"},
        outputs=["out"],
    )
    environment = s3fs_environment(rgw_access)
    if sandbox:
        environment["S3RUNNER_LOCAL_SANDBOX"] = sandbox

    ran = desk.run("run", job, "--json", **environment)

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "j/out").read_bytes() == LARGE + b"small"
    assert ran.json["phases"]["fetch"]["bytes"] == len(LARGE) + 5
    spec = desk.store.get(desk.keys("spec.json")[0], lambda chunks: b"".join(chunks))
    assert rgw_access.credentials.secret_key.encode() not in spec


def test_what_s3fs_reads_may_not_change_either(
    desk: Desk, rgw_access: S3Access, web: WebServer
) -> None:
    url = f"fs+{put(rgw_access, 'x', b'body')}"

    ended = ended_after(
        desk, web, url, lambda: put(rgw_access, "x", b"edit"), **s3fs_environment(rgw_access)
    )

    assert (ended.json["outcome"], ended.json["code"]) == ("input_failed", 21)
    assert ended.json["error"]["source"] == url
    assert "expected 4 bytes" in ended.json["error"]["reason"]


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("file:///etc/hosts", 2, "job.yml:4: inputs.in: file:///etc/hosts: file:// names a file"),
        ("https://u:pw@host/x", 2, "https://…@host/x: a URL with a password"),
        ("htps://host/x", 3, "did you mean 'https'?"),
    ],
)
def test_what_no_input_can_be_is_refused_before_anything_is_stored(
    desk: Desk, url: str, code: int, words: str
) -> None:
    ran = desk.run("run", desk.write_job(name="j", command="true", inputs={"in": url}))

    assert ran.code == code, ran.stderr
    assert words in ran.stderr
    assert "pw@" not in ran.stderr
    assert desk.keys() == []


def test_ls_and_cat_say_that_they_read_the_store(desk: Desk) -> None:
    for verb in ("ls", "cat"):
        ran = desk.run(verb, "https://host/x?signature=secret")
        assert ran.code == 2
        assert "ls and cat read what lies in the store" in ran.stderr
        assert "secret" not in ran.stderr

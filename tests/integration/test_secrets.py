"""The store's keys are nowhere but where the store is asked: a job that looks for them, and us."""

from __future__ import annotations

from pathlib import Path

from command import Desk
from conftest import S3Access
from service_rule import require_program
from waiting import found_below, wait_until

from s3runner.model import Credentials

CANARY = Credentials("CANARYACCESSKEY", "canary+secret/key", "canarySessionToken")

LOOKS = r"""
exec 2>&1
env; set
cat /proc/*/environ /proc/*/cmdline | tr '\0' '\n'
ls -lR /s3runner
mkdir stolen
# not its HOME, which is the root: what lies in /proc has no end; and into mounts, as secrets are
find /s3runner /tmp /root /home /var /run -type f -exec head -c 100000 {} + >stolen/all
true
"""
"""What a tool may do to find a key: variables, other processes, files of ours and of its user."""


def test_keys_reach_neither_the_tool_nor_anything_that_is_stored_or_said(
    tmp_path: Path, moto_access: S3Access
) -> None:
    """Keys of their own, which nothing else can contain."""
    require_program("bwrap")
    desk = Desk(tmp_path, S3Access(moto_access.config, CANARY))
    (tmp_path / "in").write_text("hello\n")
    job = desk.write_job(
        name="thief", command=LOOKS, inputs={"in": "./in"}, outputs=["stolen"], env={"A": "b"}
    )
    environment = {"AWS_SESSION_TOKEN": str(CANARY.session_token)}
    said = ""
    for words in (["plan", job], ["--debug", "run", job, "--json"], ["list", "--json"]):
        ran = desk.run(*words, **environment)
        assert ran.code == 0, ran.stderr
        said += ran.stdout + ran.stderr
    state = tmp_path / "home" / ".local" / "state"
    wait_until(lambda: not found_below(state, "credentials"))

    stored = {key: desk.store.get(key, b"".join) for key in desk.keys("/")}
    here = {str(path): path.read_bytes() for path in found_below(tmp_path) if path.is_file()}
    assert b"S3RUNNER_JOB_ID" in here[str(tmp_path / "thief" / ".s3runner" / "stdout")]
    for name, body in {**stored, **here, "said": said.encode()}.items():
        for secret in (CANARY.secret_key, CANARY.session_token, CANARY.access_key):
            assert str(secret) not in name
            assert str(secret).encode() not in body, name

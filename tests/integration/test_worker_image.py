"""The image that `make image` builds: what is in it, and the worker inside, on real stores."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import S3Access
from fake_cluster import COMPLETE, FakeCluster, Heard
from image import ROOT, UID, Image, ImagePod, copy_packages, require_image, run

import s3runner
from s3runner.cluster.local.container import Mount
from s3runner.model import Destination, Input, Job, Outcome, Output
from s3runner.runner.head import Head
from s3runner.runner.runner import Runner
from s3runner.staging.digest_cache import DigestCache
from s3runner.store.retrying import Retry, RetryingStore

pytestmark = pytest.mark.xdist_group("worker image")

COMPILERS = {"cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "rustc", "cargo"}
LOADED = """
import json, sys
import s3runner.worker.main, s3runner.worker.fetch, s3runner.worker.stager
import s3runner.worker.stage_out
import s3runner.store.http_source
specs = {name: getattr(module, "__spec__", None) for name, module in sys.modules.items()}
print(json.dumps({name: [spec.origin, spec.cached] for name, spec in specs.items() if spec}))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that a process of another user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="s3runner-test-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(place: Path) -> Image:
    (place / "root").mkdir()
    return require_image(place / "root")


@pytest.fixture
def pod_folder(place: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=place))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def head_at(access: S3Access, cluster: FakeCluster) -> Runner:
    """Return a head at a real store."""
    return Runner(
        Head(
            store=RetryingStore(access.open(), Retry(budget_s=20)),
            config=access.config,
            pod_config=access.config,
            cluster=cluster,
            destination=Destination(),
            cache=DigestCache(None, time.time_ns),
            qualify=lambda: None,
        )
    )


def submit(access: S3Access, pod: ImagePod, job: Job) -> tuple[Runner, str]:
    """Stage a job in and run its pod."""
    cluster = FakeCluster(COMPLETE, on_submit=lambda name: pod.run(cluster.jobs[name]))
    head = head_at(access, cluster)
    return head, head.submit(job, Heard())


def test_the_image_names_itself_as_a_pod_would(image: Image) -> None:
    """A kubelet looks for the full name of what a pod calls `s3runner-worker:VERSION`."""
    assert image.name == f"docker.io/library/s3runner-worker:{s3runner.__version__}"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == s3runner.__version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_image_runs_as_a_user_by_number(image: Image) -> None:
    """`runAsNonRoot` refuses an image whose user has a name."""
    assert image.config["User"] == f"{UID}:{UID}"


def test_no_program_in_the_image_compiles(image: Image) -> None:
    names = {Path(path).name for path in image.files}

    assert "python3" in names
    assert not names & COMPILERS
    assert not [name for name in names if name.endswith("-linux-gnu-gcc")]


def test_no_program_in_the_image_runs_as_another_user(image: Image) -> None:
    files = {path: member for path, member in image.files.items() if member.isfile()}

    assert len(files) > 1000
    assert not [path for path, member in files.items() if member.mode & 0o6000]


def test_everybody_can_read_the_worker_and_nobody_but_root_can_write_it(image: Image) -> None:
    ours = {path: m for path, m in image.files.items() if path.startswith("opt/s3runner/")}

    assert len(ours) > 50
    for path, member in ours.items():
        assert member.mode & 0o044 == 0o044, path
        assert member.mode & 0o022 == 0, path
        assert (member.uid, member.gid) == (0, 0), path


def test_nothing_of_the_machine_that_built_the_image_stays_in_it(image: Image) -> None:
    """Not the addresses of package mirrors (which may hold keys), no cache, no wheels."""
    held = {path for path, member in image.files.items() if member.isfile() and member.size}

    assert not [path for path in held if path.startswith(("etc/apt/sources", "wheels/"))]
    assert not [path for path in held if path.endswith(".whl") or "/.cache/" in path]
    assert not held & {"etc/resolv.conf", "etc/hostname", "etc/hosts"}
    assert not [path for path in held if path.startswith(("var/lib/apt/lists/", "var/cache/apt/"))]


def test_the_image_knows_public_certificate_authorities(image: Image) -> None:
    """Without them there is no TLS to a store with a public certificate."""
    bundle = image.root / "etc" / "ssl" / "certs" / "ca-certificates.crt"

    assert bundle.read_text().count("BEGIN CERTIFICATE") > 50


def test_without_words_the_worker_says_how_it_is_used(image: Image) -> None:
    ran = run(image, image.config["Entrypoint"])

    assert ran.code == 20
    assert ran.output == "usage: execute_job.py fetch|stager\n"


def test_a_container_is_a_user_that_can_write_nowhere(image: Image) -> None:
    """The tests below say nothing about a restricted pod unless this is so."""
    ran = run(
        image,
        ["/bin/sh", "-c", "id -u; id -g; touch /tmp/x /home/s3runner/x /opt/s3runner/x; ls /root"],
    )

    assert ran.output.splitlines()[:2] == [str(UID), str(UID)]
    assert ran.output.count("Read-only file system") == 3
    assert "Permission denied" in ran.output


def test_the_worker_loads_the_standard_library_and_obstore_all_of_it_compiled(image: Image) -> None:
    """No pod can write the compiled form, so each would compile what the image lacks."""
    ran = run(image, ["python3", "-c", LOADED])

    assert ran.code == 0, ran.output
    loaded = json.loads(ran.output)
    theirs = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    ours = {name for name in theirs if not name.startswith(("__", "_sysconfigdata", "_distutils"))}
    assert ours - {"sitecustomize", "apport_python_hook"} == {"obstore", "s3runner"}
    sources = {name: at for name, at in loaded.items() if str(at[0]).endswith(".py")}
    assert len(sources) > 80
    for name, (origin, cached) in sources.items():
        assert cached.lstrip("/") in image.files, (name, origin)


def test_a_job_runs_in_the_image_on_every_store(
    image: Image, pod_folder: Path, s3_access: S3Access, tmp_path: Path
) -> None:
    """Read-only root, UID 1000, no writable directory but the pod's volumes."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b\nc").write_text("small\n")
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "large").write_bytes(bytes(range(256)) * 80_000)
    pod = ImagePod(image, pod_folder / "pod", s3_access.environment)
    job = Job(
        name="copy",
        command='cp -a in out && cp large out/ && id -u && echo "${AWS_SECRET_ACCESS_KEY-none}"',
        inputs=(Input("in", str(tmp_path / "in")), Input("large", str(tmp_path / "large"))),
        outputs=(Output("out"),),
    )

    head, job_id = submit(s3_access, pod, job)
    end = head.wait(job_id, Heard())
    head.sync(job_id, tmp_path / "back", Heard())

    codes = {name: ran.code for name, ran in pod.ran.items()}
    assert codes == {"fetch": 0, "tool": 0, "stager": 0}, pod.ran
    assert end.outcome is Outcome.SUCCEEDED, pod.ran
    out = tmp_path / "back" / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a b\nc", "empty", "large"]
    assert (out / "a b\nc").read_text() == "small\n"
    assert (out / "large").read_bytes() == (tmp_path / "large").read_bytes()
    said = tmp_path / "back" / ".s3runner" / "stdout"
    assert said.read_text() == f"{UID}\nnone\n"


def test_a_tool_that_fails_in_the_image_is_told_with_its_code(
    image: Image, pod_folder: Path, moto_access: S3Access
) -> None:
    pod = ImagePod(image, pod_folder / "pod", moto_access.environment)

    head, job_id = submit(moto_access, pod, Job(name="fail", command="exit 7"))
    end = head.wait(job_id, Heard())

    assert pod.ran["stager"].code == 10
    assert end.outcome is Outcome.TOOL_FAILED
    assert end.tool_exit_code == 7


def test_a_store_that_refuses_the_keys_is_named_by_fetch(
    image: Image, pod_folder: Path, rgw_access: S3Access
) -> None:
    keys = {**rgw_access.environment, "AWS_SECRET_ACCESS_KEY": "another"}
    pod = ImagePod(image, pod_folder / "pod", keys)

    submit(rgw_access, pod, Job(name="refused", command="true"))

    assert pod.ran["fetch"].code == 23
    assert "[E23]" in pod.ran["fetch"].output
    assert "another" not in pod.ran["fetch"].output


def test_the_workers_own_tests_pass_in_the_image(image: Image, place: Path) -> None:
    """With the image's Python and its packages; only pytest and the tests come from outside."""
    folder = place / "tests"
    folder.mkdir()
    copy_packages(
        ["_pytest", "pytest", "py", "pluggy", "iniconfig", "packaging", "pygments"], folder
    )
    suites = sorted((ROOT / "tests" / "unit").glob("test_worker_*.py"))
    suites += sorted((ROOT / "tests" / "unit").glob("test_tool_*.py"))
    for path in (*(ROOT / "tests").glob("*.py"), *suites):
        if path.name != "conftest.py":
            shutil.copy(path, folder)

    ran = run(
        image,
        ["python3", "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-c", "/dev/null"]
        + ["--rootdir", "/tests", "--import-mode", "importlib", "-W", "error"]
        + [f"/tests/{path.name}" for path in suites],
        env={"PYTHONPATH": "/opt/s3runner:/tests"},
        mounts=[Mount("/tests", str(folder), read_only=True)],
        options=["--tmpfs", "/tmp"],  # noqa: S108  # the container's own
    )

    assert len(suites) >= 5
    assert ran.code == 0, ran.output
    assert " passed" in ran.output.splitlines()[-1]

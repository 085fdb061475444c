"""Scanning: everything is seen as it is, nothing is followed out, and refusals come together."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile import DENIED, NAMES, REFUSED, plant, snapshot
from hypothesis import given
from hypothesis import strategies as st

from s3runner.errors import InputError, StagingError, UnsupportedError
from s3runner.model import Entry, Kind, Output
from s3runner.staging.links import escaping_links
from s3runner.staging.manifest import conflict
from s3runner.staging.scan import OutputScan, scan, scan_outputs
from s3runner.staging.walk import Findings


def _refusals(path: str, source: Path) -> tuple[Exception, ...]:
    with pytest.raises(StagingError) as caught:
        scan(path, str(source))
    return caught.value.failures


def test_the_hostile_tree_is_seen_whole(tmp_path: Path) -> None:
    root = plant(tmp_path / "tree")
    tree = scan("in/tree", str(root))
    seen = snapshot(root)
    names = {
        os.fsencode(e.path).removeprefix(b"in/tree").lstrip(b"/") or b"." for e in tree.entries
    }
    assert names == seen.keys()
    for entry in tree.entries:
        was = seen[os.path.relpath(os.fsencode(entry.path), b"in/tree")]
        assert entry.mtime_ns == was.mtime_ns
        assert entry.mode == was.mode
    assert tree.warnings == ()
    assert conflict(tree.entries) == ""


def test_one_file_is_a_tree_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("abc")
    tree = scan("place/in.txt", str(tmp_path / "f"))
    assert [(entry.path, entry.kind, entry.size) for entry in tree.entries] == [
        ("place/in.txt", Kind.FILE, 3)
    ]
    assert tree.files["place/in.txt"].path == str(tmp_path / "f")


@pytest.mark.parametrize("target", ["file", "dir"])
def test_a_link_named_as_input_is_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere" / "dir").mkdir(parents=True)
    (tmp_path / "elsewhere" / "file").write_text("abc")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "elsewhere" / target)
    tree = scan("in", str(tmp_path / "first"))
    assert tree.entries[0].kind is (Kind.FILE if target == "file" else Kind.DIR)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_travel_is_refused_by_name(tmp_path: Path, case: str) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "file").touch()
    REFUSED[case].make(root / "bad")
    [failure] = _refusals("tree", root)
    assert isinstance(failure, REFUSED[case].error)
    assert failure.source == str(root / "bad")
    assert REFUSED[case].says in failure.reason


@pytest.mark.parametrize("case", ["a FIFO", "a socket"])
def test_a_special_file_is_refused_as_an_input_itself_or_behind_a_link(
    tmp_path: Path, case: str
) -> None:
    REFUSED[case].make(tmp_path / "bad")
    (tmp_path / "link").symlink_to("bad")
    for name in ("bad", "link"):
        [failure] = _refusals("in", tmp_path / name)
        assert isinstance(failure, UnsupportedError)
        assert failure.source == str(tmp_path / "bad")


def test_the_largest_file_that_a_store_takes_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.truncate(tmp_path / "f", 5 * 1024**4)
    assert scan("in", str(tmp_path / "f")).entries[0].size == 5 * 1024**4


def test_a_device_is_refused() -> None:
    [failure] = _refusals("in", Path("/dev/zero"))
    assert isinstance(failure, UnsupportedError)
    assert "device" in failure.reason


def test_all_refusals_come_together(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("/etc/passwd")
    (root / "a").mkdir()
    os.mkfifo(root / "a" / "fifo2")
    names = {failure.source for failure in _refusals("in", root)}  # type: ignore[attr-defined]  # all are ours
    assert names == {str(root / name) for name in ("fifo", "link", "a/fifo2")}


@pytest.mark.parametrize("broken", ["absent", "absent/below", "file/below", "dangling", "loop"])
def test_a_missing_input_is_a_staging_failure(tmp_path: Path, broken: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    [failure] = _refusals("in", tmp_path / broken)
    assert isinstance(failure, InputError)
    assert failure.source == str(tmp_path / broken)


def _as_nobody(tell: Callable[[], str]) -> str:
    """Return what `tell` returns in a process without root's rights."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # a fork beside the threads of a test runner: the child takes no lock that they may hold
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, tell().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as told:
        text = told.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def public() -> Iterator[Path]:
    """Give a directory that every user of this machine can look into."""
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        yield Path(top)


def test_an_unreadable_file_is_a_staging_failure(public: Path) -> None:
    DENIED.make(public / "bad")

    def tell() -> str:
        [failure] = _refusals("in", public)
        return f"{type(failure).__name__} {failure}"

    assert (
        _as_nobody(tell) == f"{DENIED.error.__name__} {public}/bad: cannot be read: {DENIED.says}"
    )


def test_an_unreadable_directory_is_a_staging_failure(public: Path) -> None:
    (public / "open").mkdir()
    (public / "open" / "bad").mkdir(mode=0)

    def tell() -> str:
        [failure] = _refusals("in", public / "open")
        return f"{type(failure).__name__} {failure}"

    told = _as_nobody(tell)
    assert told == f"InputError {public}/open/bad: cannot be read: Permission denied"


def test_a_path_that_is_too_long_is_unsupported(tmp_path: Path) -> None:
    back = os.open(".", os.O_RDONLY)
    os.chdir(tmp_path)
    try:
        for _ in range(25):
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
    finally:
        os.fchdir(back)
        os.close(back)
    [failure] = _refusals("in", tmp_path)
    assert isinstance(failure, UnsupportedError)


def test_setuid_setgid_and_sticky_bits_are_dropped_with_one_warning(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name, mode in (("a", 0o4755), ("b", 0o2755), ("c", 0o644)):
        (root / name).touch()
        (root / name).chmod(mode)
    root.chmod(0o1755)
    tree = scan("tree", str(root))
    assert [entry.mode for entry in tree.entries] == [0o755, 0o755, 0o755, 0o644]
    [warning] = tree.warnings
    assert "2 others" in warning


def test_a_directory_that_inherited_setgid_is_nothing_to_tell(tmp_path: Path) -> None:
    """A pod's fsGroup gives the bit to its volumes, and so to all that a tool makes there."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree").chmod(0o2755)
    tree = scan("tree", str(tmp_path / "tree"))
    assert [entry.mode for entry in tree.entries] == [0o755]
    assert tree.warnings == ()


def test_hard_links_are_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert set(scan("in", str(tmp_path)).files) == {"in/a", "in/b"}


def test_a_tree_much_deeper_than_the_interpreters_stack_is_scanned() -> None:
    with tempfile.TemporaryDirectory() as top:
        depths = [top + "/d" * depth for depth in range(1, 1901)]
        for directory in depths:
            Path(directory).mkdir()
        try:
            assert len(scan("in", top).entries) == 1901
        finally:
            # the standard library's own removal is recursive
            for directory in reversed(depths):
                Path(directory).rmdir()


_TARGETS = st.lists(
    st.sampled_from(["a", "b", "c", "d", "..", ".", "", "gone"]), min_size=1, max_size=6
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d/b", "d/c"]), _TARGETS, max_size=4))
def test_a_link_that_passes_never_leads_the_kernel_out(links: dict[str, list[str]]) -> None:
    entries = [Entry("root", Kind.DIR, 0o755, 0), Entry("root/d", Kind.DIR, 0o755, 0)]
    with tempfile.TemporaryDirectory() as top:
        Path(top, "root", "d").mkdir(parents=True)
        for name, segments in links.items():
            target = "/".join(segments).lstrip("/") or "."
            Path(top, "root", name).symlink_to(target)
            entries.append(Entry(f"root/{name}", Kind.SYMLINK, 0o777, 0, target=target))
        refused = {entry.path for entry in escaping_links(entries)}
        for entry in entries[2:]:
            with contextlib.suppress(OSError):
                found = os.open(f"{top}/{entry.path}", os.O_PATH)
                real = Path(f"/proc/self/fd/{found}").readlink()
                os.close(found)
                inside = f"{real}/".startswith(f"{os.path.realpath(top)}/root/")
                assert inside or entry.path in refused


def _outputs(work: Path, *paths: str | Output, roots: Sequence[Path] = ()) -> OutputScan:
    outputs = [path if isinstance(path, Output) else Output(path) for path in paths]
    return scan_outputs(outputs, str(work), [str(root) for root in roots or (work,)])


def _paths(found: OutputScan) -> list[str]:
    return sorted(entry.path for tree in found.trees for entry in tree.entries)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    for path in (
        "out.bam",
        "qc/a.txt",
        "qc/b.txt",
        "qc/.hidden.txt",
        "qc/deep/c.txt",
        ".dot/d.txt",
    ):
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(path)
    return work


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("out.bam", ["out.bam"]),
        ("./out.bam", ["out.bam"]),
        ("*.bam", ["out.bam"]),
        ("qc/*.txt", ["qc/a.txt", "qc/b.txt"]),
        ("qc/?.txt", ["qc/a.txt", "qc/b.txt"]),
        ("qc/[!a].txt", ["qc/b.txt"]),
        ("qc/.*.txt", ["qc/.hidden.txt"]),
        ("*/deep/c.txt", ["qc/deep/c.txt"]),
        ("**/*.txt", ["qc/a.txt", "qc/b.txt", "qc/deep/c.txt"]),
        ("**/c.txt", ["qc/deep/c.txt"]),
        ("qc/**/*.txt", ["qc/a.txt", "qc/b.txt", "qc/deep/c.txt"]),
        ("**/deep", ["qc/deep", "qc/deep/c.txt"]),
        ("qc/deep/", ["qc/deep", "qc/deep/c.txt"]),
        (".dot/*", [".dot/d.txt"]),
        ("qc/**", ["qc/a.txt", "qc/b.txt", "qc/deep", "qc/deep/c.txt"]),
        (
            "q*",
            ["qc", "qc/.hidden.txt", "qc/a.txt", "qc/b.txt", "qc/deep", "qc/deep/c.txt"],
        ),
    ],
)
def test_a_pattern_matches_what_a_shell_would(work: Path, pattern: str, found: list[str]) -> None:
    scanned = _outputs(work, pattern)
    assert _paths(scanned) == found
    assert scanned.missing == ()


@pytest.mark.parametrize("pattern", ["absent", "absent/below", "out.bam/below", "*.sam", "*/*/*/*"])
def test_an_output_that_is_not_there_is_missing_unless_optional(work: Path, pattern: str) -> None:
    assert _outputs(work, pattern).missing == (pattern,)
    assert _outputs(work, Output(pattern, optional=True)).missing == ()


@pytest.mark.parametrize("name", ["a[1].txt", "*", "what?", "[", "**"])
def test_a_name_that_exists_wins_over_reading_it_as_a_pattern(work: Path, name: str) -> None:
    (work / name).write_text("x")
    assert _paths(_outputs(work, name)) == [name]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_file_name_can_be_an_output_and_match_a_pattern(tmp_path: Path, name: bytes) -> None:
    text = os.fsdecode(name)
    (tmp_path / text).write_text("x")
    assert _paths(_outputs(tmp_path, text)) == [text]
    assert _paths(_outputs(tmp_path, ".*" if text.startswith(".") else "*")) == [text]


def test_an_output_inside_another_is_one_entry(work: Path) -> None:
    scanned = _outputs(work, "qc/a.txt", "qc", "qc/*.txt", "**/a.txt", "qc")
    paths = _paths(scanned)
    assert len(paths) == len(set(paths)) == 6
    assert sorted(path for tree in scanned.trees for path in tree.files) == [
        path for path in paths if path.endswith(".txt")
    ]
    assert scanned.missing == ()


def test_an_absolute_output_keeps_its_own_path(work: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.txt").write_text("x")
    pattern = f"{tmp_path}/data/*.txt"
    assert _paths(_outputs(work, pattern, roots=[work, tmp_path / "data"])) == [
        f"{tmp_path}/data/x.txt"
    ]


def test_an_output_that_is_a_link_inside_is_what_it_points_to(work: Path) -> None:
    (work / "latest").symlink_to("qc/a.txt")
    scanned = _outputs(work, "latest")
    [entry] = scanned.trees[0].entries
    assert (entry.path, entry.kind) == ("latest", Kind.FILE)
    assert scanned.trees[0].files["latest"].path == str(work / "qc/a.txt")


@pytest.mark.parametrize("output", ["stolen", "stolen/token", "stol*", "*/token"])
def test_an_output_that_leads_outside_is_refused(work: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("s")
    (work / "stolen").symlink_to(tmp_path / "secrets")
    with pytest.raises(StagingError) as caught:
        _outputs(work, output)
    [failure] = caught.value.failures
    assert isinstance(failure, UnsupportedError)
    assert failure.source.startswith(str(work / "stolen"))


def test_a_sibling_whose_name_begins_like_the_root_is_outside(work: Path) -> None:
    (work.parent / "workshop").mkdir()
    (work / "link").symlink_to("../workshop")
    with pytest.raises(StagingError, match="outside"):
        _outputs(work, "link")


@pytest.mark.parametrize("output", ["../x", "qc/../../x", "", ".", "/", "a\0b"])
def test_an_output_without_a_name_inside_is_refused(work: Path, output: str) -> None:
    with pytest.raises(StagingError) as caught:
        _outputs(work, output)
    assert isinstance(caught.value.failures[0], UnsupportedError)


def test_a_dangling_output_is_missing(work: Path) -> None:
    (work / "dangling").symlink_to("gone")
    assert _outputs(work, "dangling").missing == ("dangling",)


def test_a_fifo_among_the_outputs_is_refused_and_never_opened(work: Path) -> None:
    os.mkfifo(work / "qc" / "fifo")
    for output in ("qc", "qc/fifo", "qc/f*"):
        with pytest.raises(StagingError, match="FIFO"):
            _outputs(work, output)


def test_a_double_star_follows_no_link(work: Path) -> None:
    (work / "qc" / "again").symlink_to(".")
    assert _paths(_outputs(work, "**/a.txt")) == ["qc/a.txt"]


@pytest.mark.parametrize("output", [".s3runner/stdout", ".s3runner", ".s*", "./.s3runner/x"])
def test_an_output_in_the_place_of_the_streams_is_refused(work: Path, output: str) -> None:
    (work / ".s3runner").mkdir()
    for name in ("stdout", "x"):
        (work / ".s3runner" / name).touch()
    with pytest.raises(StagingError, match="streams") as caught:
        _outputs(work, output)
    assert isinstance(caught.value.failures[0], UnsupportedError)


class _Watched(dict[str, Entry]):
    """Entries of a walk that lets someone act when a path is noted, and counts what is read."""

    def __init__(self, path: str = "", act: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.read = 0
        self._path = path
        self._act = act

    def setdefault(self, path: str, entry: Entry) -> Entry:
        if path == self._path:
            self._act()
        return super().setdefault(path, entry)

    def __iter__(self) -> Iterator[str]:
        self.read += len(self)
        return super().__iter__()

    def values(self) -> Any:
        self.read += len(self)
        return super().values()


@pytest.mark.parametrize("swapped", ["top", "top/d", "top/d/s"])
def test_a_directory_that_becomes_a_link_while_it_is_looked_at_leads_nowhere(
    tmp_path: Path, swapped: str
) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    (work / "top/d/s").mkdir(parents=True)
    (work / "top/d/s/ours").touch()
    for place in ("", "s", "d/s"):
        (outside / place).mkdir(parents=True, exist_ok=True)
        (outside / place / "token").write_text("secret")

    def swap() -> None:
        (work / swapped).rename(tmp_path / "away")
        (work / swapped).symlink_to(outside)

    findings = Findings(entries=_Watched("top/d/s", swap))
    findings.add_tree("top", str(work / "top"), str(work))
    assert not any("token" in path for path in findings.entries)
    [failure] = findings.failures
    assert failure.code in (21, 25)


def test_a_directory_that_is_replaced_while_it_is_looked_at_is_seen_as_it_is(
    tmp_path: Path,
) -> None:
    (tmp_path / "d/s").mkdir(parents=True)

    def swap() -> None:
        (tmp_path / "d").rename(tmp_path / "away")
        (tmp_path / "d/s").mkdir(parents=True)
        (tmp_path / "d/s/new").touch()

    findings = Findings(entries=_Watched("d/s", swap))
    findings.add_tree("d", str(tmp_path / "d"), str(tmp_path))
    assert findings.failures == []
    assert set(findings.files) == {"d/s/new"}


def test_each_match_of_a_pattern_is_looked_at_once(tmp_path: Path) -> None:
    entries = _Watched()
    findings = Findings(entries=entries)
    for number in range(500):
        (tmp_path / str(number)).touch()
        findings.add_tree(str(number), f"{tmp_path}/{number}", str(tmp_path))
    assert len(findings.ordered()) == 500
    assert entries.read <= 2 * 500


def test_of_a_directory_only_the_files_that_match_are_found(tmp_path: Path) -> None:
    """What a tool leaves beside them stays where it is; a link stands for its file."""
    made = tmp_path / "parts"
    (made / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.tab", "deep/c.txt"):
        (made / name).write_text(name)
    (made / "l.txt").symlink_to("b.tab")
    output = Output("parts", optional=True, matching=r"[^/]+\.txt")

    scanned = scan_outputs([output], str(tmp_path), [str(tmp_path)])

    found = {entry.path: entry.kind for tree in scanned.trees for entry in tree.entries}
    assert found == {"parts/a.txt": Kind.FILE, "parts/l.txt": Kind.FILE}


def test_matching_files_of_a_directory_that_is_not_there_are_none(tmp_path: Path) -> None:
    """Only who does not say that they may be absent misses them."""
    outputs = [Output("no", optional=True, matching=""), Output("neither", matching="")]

    assert scan_outputs(outputs, str(tmp_path), [str(tmp_path)]).missing == ("neither",)

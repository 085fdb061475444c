"""Tools on a real Galaxy whose files no pod can see.

All of them are started at once and each test waits for its own: most of a job's time is Galaxy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from galaxy_server import ADMIN, GalaxyServer, GalaxyUser, Ran, hda, hdas, hdca, local, pasted

ON_BOTH = pytest.mark.parametrize("where", ["t", "k"], ids=["local", "kubernetes"])
"""Tools that run on this machine's local cluster, and the same on a Kubernetes cluster."""

ODD_NAME = 'odd \' name $(x) \u00e9 \\ "q"'


class Runs:
    """Runs of tools, each begun when it is first named, or before."""

    def __init__(self, user: GalaxyUser) -> None:
        self.user = user
        self._made: dict[str, Mapping[str, Any]] = {}

    def begin(self, name: str, tool: str, /, **inputs: Any) -> None:
        """Start a tool."""
        self._made[name] = self.user.start(tool, **inputs)

    def __getitem__(self, name: str) -> Ran:
        """Return a run when it is over."""
        made = self._made[name]
        return Ran(self.user, made, self.user.wait(made["jobs"][0]["id"]))


@pytest.fixture(scope="session")
def runs(galaxy: GalaxyServer, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every tool, on its way."""
    user = galaxy.user(ADMIN)
    found = Runs(user)
    made = _bam(tmp_path_factory.mktemp("bam") / "x.bam")
    texts = (pasted("b\na\n", ODD_NAME), pasted("c\n", "second"))
    one, two, bam = user.fetch(*texts, local(made, "bam"))
    hidden = str(galaxy.directory / "universe.sqlite")
    elements = hdca(user.collect(one, two))
    found.begin("hungry", "t_hungry")
    found.begin("tardy", "t_tardy")
    found.begin("extra", "t_extra")
    for where in ("k", "t"):
        found.begin(f"{where}_plain", f"{where}_plain", input=hda(one), hidden=hidden)
        found.begin(f"{where}_collection", f"{where}_collection", inputs=elements)
        found.begin(f"{where}_failing", f"{where}_failing", code=3, wanted="true")
        found.begin(f"{where}_index", f"{where}_index", genome="hg")
        found.begin(f"{where}_work_dir", f"{where}_work_dir", name="a 'quoted' name")
    found.begin("far index", "t_index", genome="mm")
    found.begin("t_extended", "t_extended", input=hda(one), hidden=hidden)
    found.begin("many", "t_many", inputs=hdas([one, two]))
    found.begin("t_failing early", "t_failing", code=3, wanted="false")
    found.begin("lenient", "t_lenient", wanted="true")
    found.begin("lenient early", "t_lenient", wanted="false")
    for name in ("forgetful", "trusting", "discovering", "loud", "report"):
        found.begin(name, f"t_{name}")
    found.begin("bam", "t_bam", input=hda(bam))
    found.begin("extra_in", "t_extra_in", input=hda(found["extra"]["output"]))
    return found


def _bam(path: Path) -> Path:
    pysam = pytest.importorskip("pysam", reason="Galaxy brings it")
    header = {"HD": {"VN": "1.0", "SO": "coordinate"}, "SQ": [{"LN": 1000, "SN": "chr1"}]}
    with pysam.AlignmentFile(str(path), "wb", header=header):
        pass
    return path


@pytest.mark.parametrize("name", ["t_plain", "t_extended", "k_plain"])
def test_a_tool_reads_and_writes_datasets_that_its_pod_cannot_reach(runs: Runs, name: str) -> None:
    """Galaxy's own files are hidden from the pod, and the sorted dataset is back all the same."""
    ran = runs[name]

    assert ran.state == "ok", ran.job
    assert ran.text("output") == "a\nb\n"
    assert ran.job["tool_stdout"] == "sorted\n"
    assert "No such file" in ran.job["tool_stderr"]
    assert ran.job["exit_code"] == 0
    assert ran.job["command_version"] == "7.7"


def test_several_inputs_arrive_in_their_order(runs: Runs) -> None:
    """Each dataset is staged at its own path, whatever its directory."""
    assert runs["many"].text("output") == "b\na\nc\n"


@ON_BOTH
def test_only_the_collected_files_of_a_collection_come_back(
    runs: Runs, galaxy: GalaxyServer, where: str
) -> None:
    """What the tool leaves beside its elements is neither uploaded nor brought here."""
    ran = runs[f"{where}_collection"]

    found = runs.user.collection(ran.made["output_collections"][0]["id"])
    texts = {e["element_identifier"]: runs.user.text(e["object"]["id"]) for e in found["elements"]}
    assert texts == {"e0": "B\nA\n", "e1": "C\n"}
    access = galaxy.access if galaxy.site is None or where == "t" else galaxy.site.access
    stored = [item.key for item in access.open().list(f"{access.config.prefix}/")]
    assert any(key.endswith("e0.up.txt") for key in stored)
    assert not any("left.tmp" in key or "intermediate.bin" in key for key in stored)


@pytest.mark.parametrize("name", ["t_failing", "t_failing early", "k_failing"])
def test_a_tool_that_fails_is_an_error_with_its_exit_code_and_streams(
    runs: Runs, name: str
) -> None:
    """Galaxy reads a missing exit code as 0."""
    ran = runs[name]

    assert (ran.state, ran.job["exit_code"]) == ("error", 3)
    assert ran.job["tool_stdout"] == "to-stdout\n"
    assert ran.job["tool_stderr"] == "to-stderr\n"


def test_an_exit_code_that_the_tool_allows_is_no_error(runs: Runs) -> None:
    """What a tool's exit code means is Galaxy's to say."""
    assert (runs["lenient"].state, runs["lenient"].text("output")) == ("ok", "x\n")


@pytest.mark.parametrize("name", ["forgetful", "lenient early"])
def test_an_output_that_was_never_written_is_no_empty_dataset(runs: Runs, name: str) -> None:
    """Galaxy would show an empty file of its own in the place of the output, in green."""
    assert runs[name].state == "error"


def test_a_tool_that_counts_on_galaxys_empty_files_has_them_where_its_destination_says_so(
    runs: Runs,
) -> None:
    """`s3runner_missing_outputs: empty`: what it leaves alone, or never makes, stays empty."""
    ran = runs["trusting"]

    assert ran.state == "ok", ran.job
    texts = {name: ran.text(name) for name in ("added", "left", "nowhere")}
    assert texts == {"added": "more\n", "left": "", "nowhere": ""}


def test_discovered_datasets_come_back_and_others_do_not(runs: Runs, galaxy: GalaxyServer) -> None:
    """Files are matched in the pod as Galaxy matches them here; a link counts as its file."""
    assert runs["discovering"].state == "ok"
    texts = {
        found["name"]: runs.user.text(found["id"])
        for found in runs.user.datasets()
        if found.get("creating_job") == runs["discovering"].job["id"]
    }
    assert sorted(texts.values()) == ["a\n", "b\n", "d\n", "linked\n", "main\n"]
    stored = [item.key for item in galaxy.access.open().list(f"{galaxy.access.config.prefix}/")]
    assert not any("other.tab" in key or "target.secret" in key for key in stored)


def test_extra_files_travel_out_and_in(runs: Runs) -> None:
    """A dataset's directory goes with it, there and back."""
    assert runs["extra"].text("output") == "<html/>\n"
    assert runs["extra_in"].text("output") == "inner\n"


@ON_BOTH
def test_configfiles_the_tools_own_files_and_from_work_dir_are_where_they_belong(
    runs: Runs, where: str
) -> None:
    """All paths in the pod are those of the head."""
    ran = runs[f"{where}_work_dir"]

    assert ran.state == "ok", ran.job["tool_stderr"]
    assert ran.text("output") == "from-work-dir\n"
    assert ran.text("report").startswith("the tool's own table\nconfig of a ")


@ON_BOTH
def test_all_files_of_an_index_and_no_other_are_staged(runs: Runs, where: str) -> None:
    """A data table's path may be what several files' names begin with."""
    expected = "index one\nindex two\nhg.1.ebwt\nhg.2.ebwt\n"
    assert runs[f"{where}_index"].text("output") == expected


def test_an_index_that_only_the_bucket_has_is_where_the_data_table_says(runs: Runs) -> None:
    """Its place is no directory of Galaxy's machine: the pod fetches it, and nobody else."""
    assert runs["far index"].text("output") == "far one\nfar two\nmm.1.ebwt\nmm.2.ebwt\n"


def test_a_bam_comes_with_its_index(runs: Runs) -> None:
    """Metadata files that the template names are staged."""
    ran = runs["bam"]

    assert ran.state == "ok", ran.job["tool_stderr"]
    sizes = [int(line) for line in ran.text("output").split()]
    assert min(sizes) > 0


def test_two_megabytes_of_output_do_not_fail_a_job(runs: Runs) -> None:
    """Galaxy keeps the beginning and the end."""
    assert runs["loud"].state == "ok"
    assert runs["loud"].job["tool_stdout"].startswith("a-line-of-text\n")


def test_what_a_tool_reports_of_its_outputs_reaches_galaxy(runs: Runs) -> None:
    """galaxy.json comes back."""
    assert runs.user.dataset(runs["report"]["output"])["name"] == "renamed by the tool"


def test_a_job_that_runs_out_of_memory_is_resubmitted_with_more(runs: Runs) -> None:
    """Nothing of the first destination is left in the second, and the tool knows what it has."""
    ran = runs["hungry"]

    assert ran.state == "ok", ran.job
    assert ran.text("output") == "2 256\n"


def test_a_job_that_runs_too_long_is_resubmitted_with_more_time(runs: Runs) -> None:
    """The first destination's variables are not in the second's pods."""
    ran = runs["tardy"]

    assert ran.state == "ok", ran.job
    assert ran.text("output") == "in time\n"

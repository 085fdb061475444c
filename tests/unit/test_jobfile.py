"""The job file: what it means, what is refused, and how mistakes are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3runner.errors import SettingsError
from s3runner.jobfile import job_schema, load_job, parse_job
from s3runner.model import Input, Job, Output, Quantity, Reference, Resources
from s3runner.places import place_of
from s3runner.yamlfile import parse_yaml, seconds_of

REFERENCES = {
    "hg38": Reference("hg38", "s3://refs/hg38/"),
    "mm10": Reference("mm10", "s3://refs/mm10/", "/data/mm10"),
}
BASE = Path("/base")


def parsed(text: str | dict[str, Any], base_dir: Path = BASE) -> Job:
    return parse_job(text, "job.yml", base_dir, REFERENCES)


def mistakes(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parsed(text)
    return caught.value.reason.splitlines()


def test_a_whole_job_file_becomes_a_job(tmp_path: Path) -> None:
    path = tmp_path / "my job.yml"
    path.write_text(
        "image: quay.io/biocontainers/samtools:1.21\n"
        "command: samtools sort -@ $CPUS -o out.bam in.bam\n"
        "inputs:\n"
        "  in.bam: ./data/sample.bam\n"
        "references: [hg38]\n"
        'outputs: [out.bam, "qc/*.txt", {path: extra.log, optional: true}]\n'
        "resources: {cpu: 4, memory: 8Gi, disk: auto, gpu: 1}\n"
        "walltime: 2h\n"
        "env: {LC_ALL: C}\n"
    )
    assert load_job(path, REFERENCES) == Job(
        name="my-job",
        command="samtools sort -@ $CPUS -o out.bam in.bam",
        image="quay.io/biocontainers/samtools:1.21",
        inputs=(Input("in.bam", f"{tmp_path}/data/sample.bam"),),
        outputs=(Output("out.bam"), Output("qc/*.txt"), Output("extra.log", optional=True)),
        references=(REFERENCES["hg38"],),
        env={"LC_ALL": "C"},
        resources=Resources(Quantity("4", "4"), Quantity("8Gi", "8Gi"), Quantity(), gpu=1),
        walltime_s=7200.0,
    )


def test_a_command_is_all_that_a_job_needs() -> None:
    assert parsed("command: 'true'") == Job(name="job", command="true")


def test_keys_without_a_value_are_like_absent_ones() -> None:
    empty = "command: 'true'\nimage:\ninputs:\noutputs:\nreferences:\nresources:\nenv:\nwalltime:\n"
    assert parsed(empty) == parsed("command: 'true'")


def test_a_mapping_at_hand_means_the_same_as_its_file() -> None:
    document = {"command": ["a", 5], "resources": {"cpu": 4, "gpu": 2}, "walltime": 90}
    assert parsed(document) == parsed(json.dumps(document))


def test_values_are_taken_as_they_are_written() -> None:
    job = parsed("command: [tool, 1.10, 007, no, 12:30]\nenv: {VERSION: 1.10, N: 'null', B: yes}")
    assert job.command == ("tool", "1.10", "007", "no", "12:30")
    assert job.env == {"VERSION": "1.10", "N": "null", "B": "yes"}


def test_all_mistakes_are_told_at_once_with_line_and_nearest_key() -> None:
    text = (
        "nam: x\n"
        "inputs: [a]\n"
        "outputs:\n"
        "  - {pth: a}\n"
        "resources:\n"
        "  cpu: 4Gi\n"
        "  memroy: 8Gi\n"
        "  disk: {limt: 1Gi}\n"
    )
    assert mistakes(text) == [
        "job.yml:1: command: is required",
        "job.yml:1: nam: unknown key (did you mean 'name'?)",
        "job.yml:2: inputs: must be a mapping of keys to values",
        "job.yml:4: outputs[0].path: is required",
        "job.yml:4: outputs[0].pth: unknown key (did you mean 'path'?)",
        "job.yml:6: resources.cpu: '4Gi' is no number of cores; write 4, 0.5 or 500m",
        "job.yml:7: resources.memroy: unknown key (did you mean 'memory'?)",
        "job.yml:8: resources.disk.limt: unknown key (did you mean 'limit'?)",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("command: a\ncommand: b", "job.yml:2: command: this key stands here twice"),
        ("command: a\nenv: {A: 1, A: 2}", "job.yml:2: env.A: this key stands here twice"),
        ("command: [a\nenv", "job.yml:2: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("command: a\n? [x]\n: y", "job.yml:2: a key must be text"),
        ("- a", "job.yml:1: must be a mapping of keys to values"),
        ("&a\ncommand: *a", "job.yml:1: command: anchors that refer to themselves, or too many"),
        ("a: b\n---\nc: d", "job.yml:2: not YAML: but found another document"),
        ("command: !!python/name:os.system x", "job.yml:1: command: tags are not used here"),
        ("env: {A: !!binary eA==}", "job.yml:1: env.A: tags are not used here"),
    ],
)
def test_yaml_that_can_be_misread_is_refused(text: str, mistake: str) -> None:
    assert mistakes(text) == [mistake]


def test_anchors_that_multiply_are_refused() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 7):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert "or too many" in mistakes(text)[0]


def test_mappings_can_be_merged_and_their_own_keys_win() -> None:
    document = parse_yaml("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n", "f.yml")
    assert document.data == {"a": {"x": "1", "y": "2"}, "b": {"x": "1", "y": "3"}}


@pytest.mark.parametrize(
    ("source", "means"),
    [
        ("data/x", "/base/data/x"),
        ("./data//x", "/base/data/x"),
        ("../x", "/base/../x"),
        ("/abs/x", "/abs/x"),
        ("~/x", "/home/me/x"),
        ("s3://bucket/a//b/../c", "s3://bucket/a//b/../c"),
        ("https://host/x?y", "https://host/x?y"),
        ("gs://bucket/x", "gs://bucket/x"),
        ("fs+s3://bucket/x", "fs+s3://bucket/x"),
    ],
)
def test_a_source_is_a_path_beside_the_job_file_or_a_url(
    monkeypatch: pytest.MonkeyPatch, source: str, means: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parsed({"command": "x", "inputs": {"a": source}}).inputs == (Input("a", means),)


@pytest.mark.parametrize(
    ("place", "means"),
    [
        ("a", "a"),
        ("./a//b/", "a/b"),
        ("/data/x", "/data/x"),
        ("//data/./x/", "/data/x"),
        ("/usrx/y", "/usrx/y"),
        (" -rf $(x)\n", " -rf $(x)\n"),
        ("...", "..."),
        ("\udcff", "\udcff"),
    ],
)
def test_a_place_keeps_its_meaning(place: str, means: str) -> None:
    assert place_of(place) == means


@pytest.mark.parametrize(
    "place",
    [
        *("", ".", "/", "..", "../a", "a/../../b", "/data/../etc", "a\0b", "x" * 256, "\ud800"),
        *("/usr", "/usr/x", "/bin/sh", "/lib64/x", "/etc/passwd", "/opt/x", "/dev/null", "/x"),
        *("/proc/1", "/sys/x", "/sbin/x"),
    ],
)
def test_a_place_that_climbs_or_hides_the_image_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match=r"climbs|names nothing|file's name|hide"):
        place_of(place)


@pytest.mark.parametrize("place", ["/s3runner", "/s3runner/work/x", "//s3runner/./control"])
def test_a_place_in_s3runners_own_directory_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="own directory; write a relative path"):
        place_of(place)


@settings(deadline=None)
@given(st.text())
def test_a_place_that_is_accepted_is_its_own_place(text: str) -> None:
    try:
        place = place_of(text)
    except ValueError:
        return
    assert place_of(place) == place
    assert ".." not in place.split("/")


@pytest.mark.parametrize(
    ("key", "location"),
    [
        ("inputs: {../a: x}", "inputs['../a']"),
        ("inputs: {/etc/x: y}", "inputs['/etc/x']"),
        ("outputs: [ok, ../a]", "outputs[1]"),
        ("outputs: [{path: /s3runner/control/x}]", "outputs[0].path"),
        ("references: [{hg38: /usr/x}]", "references[0].hg38"),
    ],
)
def test_every_place_of_a_job_file_is_checked(key: str, location: str) -> None:
    (mistake,) = mistakes(f"command: x\n{key}")
    assert mistake.startswith(f"job.yml:2: {location}: ")


def test_two_inputs_cannot_share_a_place() -> None:
    assert mistakes("command: x\ninputs:\n  a: x\n  ./a: y\n") == [
        "job.yml:4: inputs['./a']: another input has this place"
    ]


def test_an_input_inside_a_file_is_refused_but_not_one_inside_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    text = "command: x\ninputs: {in: %s, in/more: file}"
    assert len(parsed("command: x\ninputs: {in: file, in2: file}", tmp_path).inputs) == 2
    assert len(parsed(text % "dir", tmp_path).inputs) == 2
    for file in ("file", "s3://bucket/key", "https://host/x"):
        with pytest.raises(SettingsError, match="lies inside in, which is a file"):
            parsed(text % file, tmp_path)


def test_an_output_cannot_be_declared_twice() -> None:
    assert mistakes("command: x\noutputs: [a, {path: ./a}]") == [
        "job.yml:2: outputs[1]: a stands here twice"
    ]


@pytest.mark.parametrize(
    "written",
    ["[mm10, {hg38: ref}]", "[{mm10: }, {hg38: ./ref}]", "{mm10: , hg38: ref}"],
)
def test_references_are_names_with_or_without_a_place(written: str) -> None:
    job = parsed(f"command: x\nreferences: {written}")
    assert job.references == (REFERENCES["mm10"], Reference("hg38", "s3://refs/hg38/", "ref"))


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("references: [hg3]", "the settings have no reference 'hg3' (did you mean 'hg38'?)"),
        ("references: [hg38, hg38]", "hg38 stands here twice"),
        ("references: {hg38: a}\ninputs: {a: x}", "hg38 and input a share a"),
        ("references: {hg38: a/b}\ninputs: {a: x}", "hg38 and input a share a"),
        ("references: {hg38: a, mm10: a/b}", "mm10 and hg38 share a"),
    ],
)
def test_a_reference_that_cannot_be_placed_is_refused(keys: str, mistake: str) -> None:
    (told,) = mistakes(f"command: x\n{keys}")
    assert told.startswith("job.yml:2: references")
    assert told.endswith(mistake)


@pytest.mark.parametrize(
    ("cpu", "memory", "disk"),
    [
        (Quantity("500m", "500m"), Quantity("1Mi", "1Mi"), Quantity("1G", "1G")),
        (Quantity("1", "2"), Quantity("1Gi", None), Quantity(None, "2Ti")),
        (Quantity("0.5", "500m"), Quantity("1024Mi", "1Gi"), Quantity("1e9", "1G")),
    ],
)
def test_resources_keep_request_and_limit(cpu: Quantity, memory: Quantity, disk: Quantity) -> None:
    def pair(quantity: Quantity) -> dict[str, str | None]:
        return {"request": quantity.request, "limit": quantity.limit}

    given_ = {"cpu": pair(cpu), "memory": pair(memory), "disk": pair(disk)}
    resources = parsed({"command": "x", "resources": given_}).resources
    assert resources == Resources(cpu, memory, disk)


@pytest.mark.parametrize(
    ("resources", "mistake"),
    [
        ("cpu: 0", "no number of cores"),
        ("cpu: -1", "no number of cores"),
        ("cpu: many", "no number of cores"),
        ("cpu: 1.2.3", "not a Kubernetes quantity"),
        ("cpu: {request: 2, limit: 1500m}", "the request 2 is more than the limit 1500m"),
        ("cpu: {}", "needs a request, a limit, or both"),
        ("memory: 8", "is less than 1Mi; write the unit"),
        ("memory: 8000000000m", "counts thousandths of a byte"),
        ("memory: 8GB", "not a Kubernetes quantity"),
        ("memory: auto", "not a Kubernetes quantity"),
        ("disk: 10", "is less than 1Mi"),
        ("gpu: -1", "greater than or equal to 0"),
        ("gpu: 0.5", "must be a whole number"),
        ("gpu: {request: 1, limit: 2}", "must be the same number"),
    ],
)
def test_resources_that_cannot_be_meant_are_refused(resources: str, mistake: str) -> None:
    (told,) = mistakes(f"command: x\nresources: {{{resources}}}")
    assert told.startswith("job.yml:2: resources.")
    assert mistake in told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1.5h", 5400)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["45", 45, 45.0, " 45 "])
def test_a_time_without_a_unit_is_seconds(text: object) -> None:
    assert seconds_of(text) == 45


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "2 hours", "1:30", "h", "inf", None, True])
def test_a_time_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("env: {1A: x}", "env['1A']: is no name of a variable"),
        ("env: {S3RUNNER_X: x}", "env.S3RUNNER_X: is set by s3runner itself"),
        ("env: {TMPDIR: x}", "env.TMPDIR: is set by s3runner itself"),
        ("env: {A: [x]}", "env.A: must be text"),
        ('env: {A: "a\\0b"}', "env.A: holds a NUL"),
        ("name: a/b", "name: takes letters"),
        ("name: .hidden", "name: takes letters"),
        ("image: ' '", "image: must be text that is not blank"),
        ("inputs: {a: ''}", "inputs.a: must be text that is not blank"),
        ("inputs: {a: 's3://'}", "inputs.a: not an s3:// URI"),
        ("inputs: {a: 'file:///x'}", "inputs.a: file:///x: file:// names a file of this machine"),
        ("inputs: {a: 'https://u:p@h/x?q'}", "inputs.a: https://…@h/x?…: a URL with a password"),
        ("inputs: {a: '~nobody-here/x'}", "inputs.a: '~nobody-here/x': there is no such user"),
        ("walltime: 0", "walltime: must be more than nothing"),
        ("walltime: 99999999d", "walltime: must be 100 years at most"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(keys: str, mistake: str) -> None:
    (told,) = mistakes(f"command: x\n{keys}")
    assert told.startswith(f"job.yml:2: {mistake}")


@pytest.mark.parametrize("command", ["' '", "[]", "['', a]", '"a\\0b"', '["a\\0b"]', "{a: b}"])
def test_a_command_that_cannot_run_is_refused(command: str) -> None:
    (told,) = mistakes(f"command: {command}")
    assert told.startswith("job.yml:1: command: ")


@pytest.mark.parametrize(
    ("stem", "name"),
    [("sort-bam", "sort-bam"), ("my job (2)", "my-job-2"), ("--", "job"), ("é" * 80, "job")],
)
def test_a_job_without_a_name_is_named_by_its_file(stem: str, name: str) -> None:
    assert parse_job("command: x", f"/some/{stem}.yml", BASE, {}).name == name


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yml: No such file"):
        load_job(tmp_path / "none.yml", {})


def test_a_file_that_is_not_text_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "job.yml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not UTF-8 text"):
        load_job(path, {})


def test_a_hostile_file_name_is_escaped_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\n.yml"
    path.write_text("nam: x")
    with pytest.raises(SettingsError) as caught:
        load_job(path, {})
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_the_schema_takes_numbers_where_people_write_numbers() -> None:
    schema = json.dumps(job_schema())
    for key in ("cpu", "memory", "disk", "gpu", "walltime", "command", "outputs", "references"):
        assert f'"{key}": {{' in schema
    cpu = job_schema()["$defs"]["ResourceFields"]["properties"]["cpu"]
    assert '["string", "number"]' in json.dumps(cpu)

"""Galaxy's job configuration in its two forms: what is read, what is refused, what is printed."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from s3runner.cli.main import run_command_line
from s3runner.errors import SettingsError
from s3runner.galaxy.job_conf import RUNNER, JobConf, load_galaxy_config, load_job_conf
from s3runner.galaxy.params import GalaxyDestination, destination_of
from s3runner.settings import parse_settings

CONF = Path(__file__).parents[2] / "conf"


def xml(plugin: str = "", destinations: str = "", head: str = "") -> str:
    return (
        f'{head}<job_conf><plugins><plugin id="local" type="runner" load="l:L"/>'
        f'<plugin id="s3" type="runner" load="{RUNNER}">{plugin}</plugin></plugins>\n'
        f'<destinations default="a">{destinations}</destinations></job_conf>'
    )


def read(tmp_path: Path, text: str, name: str = "job_conf.xml", **config: Any) -> JobConf:
    path = tmp_path / name
    path.write_text(text)
    return load_job_conf(path, config, {"FROM_ENV": "found"})


def refusal(tmp_path: Path, text: str, name: str = "job_conf.xml") -> str:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, name)
    return caught.value.reason.replace(f"{tmp_path}/", "")


def meanings(conf: JobConf) -> dict[str, GalaxyDestination]:
    return {
        each.name: destination_of(each.runner_params, each.params, {}, name=each.name)
        for each in conf.destinations
    }


def test_the_two_examples_mean_the_same() -> None:
    found = [meanings(load_job_conf(CONF / f"job_conf.{kind}", {})) for kind in ("xml", "yml")]
    assert [*found[0]] == ["spot", "large", "gpu"]
    for name, of_xml in found[0].items():
        of_yml = found[1][name]
        assert of_xml.destination == of_yml.destination
        assert (of_xml.store, of_xml.options) == (of_yml.store, of_yml.options)


def test_the_document_leads_to_a_good_configuration(tmp_path: Path) -> None:
    text = (CONF.parent / "docs/galaxy.md").read_text()
    block = text.partition("```yaml\n")[2].partition("```")[0]
    found = meanings(read(tmp_path, block, "job_conf.yml"))
    assert [*found] == ["s3"]
    assert found["s3"].store.bucket == "my-bucket"


def test_a_destination_knows_its_line_and_its_runner(tmp_path: Path) -> None:
    conf = read(
        tmp_path,
        xml(
            '<param id="s3runner_bucket">bkt</param>',
            '\n<destination id="a" runner="s3"><param id="x"> y </param></destination>'
            '<destination id="b" runner="local"/>',
        ),
    )
    (found,) = conf.destinations
    assert (found.name, found.runner, found.origin) == ("a", "s3", f"{tmp_path}/job_conf.xml:3")
    assert found.runner_params == {"s3runner_bucket": "bkt"}
    assert found.params == {"x": " y "}
    assert conf.others == ("b",)


def test_a_parameter_of_xml_may_come_from_elsewhere(tmp_path: Path) -> None:
    conf = read(
        tmp_path,
        xml(
            '<param id="e" from_environ="FROM_ENV">no</param>'
            '<param id="f" from_environ="NOT_THERE">kept</param>'
            '<param id="c" from_config="key"/>'
            "<param id='n'>a<!-- a word -->b</param>",
            '<destination id="a" runner="s3"/>',
        ),
        key=7,
    )
    params = conf.destinations[0].runner_params
    assert params == {"e": "found", "f": "kept", "c": 7, "n": "ab"}


def test_what_is_switched_off_is_left_out(tmp_path: Path) -> None:
    off = '<param id="enabled">false</param>'
    conf = read(
        tmp_path,
        xml(
            '<param id="enabled">true</param>',
            f'<destination id="a" runner="s3">{off}</destination><destination id="b" runner="s3"/>',
        ),
    )
    assert [each.name for each in conf.destinations] == ["b"]
    assert "no runner with load" in refusal(tmp_path, xml(off))


YML = f"""
runners: {{s3: {{load: {RUNNER}, workers: 2, kwds: {{a: 1}}}}, other: {{load: x}}}}
execution:
  environments:
    - {{id: a, runner: s3, params: {{b: 1.10}}, env: [], tags: [x]}}
    - {{id: b, runner: s3, shell: /bin/sh, c: no}}
    - {{id: c, runner: dynamic_tpv}}
"""


def test_yaml_may_list_destinations_and_have_parameters_below_a_key(tmp_path: Path) -> None:
    """Its values have the types that Galaxy gives them."""
    conf = read(tmp_path, YML, "job_conf.yml")
    assert [(each.name, each.params) for each in conf.destinations] == [
        ("a", {"b": 1.1}),
        ("b", {"c": False}),
    ]
    assert conf.destinations[0].runner_params == {"a": 1}
    assert conf.others == ("c",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (xml(head='<!DOCTYPE x SYSTEM "/etc/passwd">'), "job_conf.xml: has a DOCTYPE"),
        (
            xml("<param id='a'>&e;</param>", head="<!DOCTYPE x [<!ENTITY e 'bomb'>]>"),
            "job_conf.xml: has a DOCTYPE",
        ),
        ("<job_conf>", "job_conf.xml:1: not XML"),
        ("", "job_conf.xml:1: not XML"),
        (xml().replace(RUNNER, "x:Y"), f"job_conf.xml: no runner with load: {RUNNER}"),
        (xml(destinations='\n<destination id="a"/>'), "job_conf.xml:3: needs id and runner"),
        (xml(head="").replace("<job_conf>", "<job_conf><macros/>"), "has macros"),
    ],
)
def test_xml_that_is_not_sound_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal(tmp_path, text)


def test_a_doctype_hides_in_no_encoding(tmp_path: Path) -> None:
    path = tmp_path / "job_conf.xml"
    head = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x>'
    path.write_bytes(xml(head=head).encode("utf-16"))
    with pytest.raises(SettingsError, match="has a DOCTYPE"):
        load_job_conf(path, {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("runners: [a]", "job_conf.yml: runners: must be a mapping"),
        (f"runners: {{s3: {{load: {RUNNER}}}}}\nexecution: {{environments: x}}", "environments"),
        ("a: 1\na: 2", "job_conf.yml:2: a: this key stands here twice"),
        ("a: [", "not YAML"),
        ("a: !!python/name:os.system x", "tags are not used here"),
        ("[]", "job_conf.yml: must be a mapping"),
        ("", f"no runner with load: {RUNNER}"),
    ],
)
def test_yaml_that_is_not_sound_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal(tmp_path, text, "job_conf.yml")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for name in ("job_conf.xml", "job_conf.yml"):
        with pytest.raises(SettingsError, match="No such file"):
            load_job_conf(tmp_path / name, {})


def test_galaxys_own_configuration_has_a_section(tmp_path: Path) -> None:
    path = tmp_path / "galaxy.yml"
    path.write_text("gravity: {a: 1}\ngalaxy: {s3runner_bucket: bkt, x: no}\n")
    assert load_galaxy_config(path) == {"s3runner_bucket": "bkt", "x": False}
    assert load_galaxy_config(None) == {}


# --- the command ----------------------------------------------------------------------------------


def called(*words: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command_line([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_check_prints_every_destination_as_settings() -> None:
    code, out, err = called("job-conf", "check", CONF / "job_conf.yml")

    assert code == 0
    assert err == f"s3runner: {CONF}/job_conf.yml: of other runners, not checked: local\n"
    documents = out.split("---\n")
    names = [next(iter(yaml.safe_load(each)["destinations"])) for each in documents]
    assert names == ["spot", "large", "gpu"]
    settings = parse_settings(documents[2], "s3runner.yml", Path("/"))
    assert settings.destination().resources.gpu == 1
    assert documents[2].startswith("# destination gpu, runner s3\n")


def test_check_of_one_destination_is_a_settings_file(tmp_path: Path) -> None:
    code, out, _ = called("job-conf", "check", CONF / "job_conf.xml", "--destination", "large")
    (tmp_path / "s3runner.yml").write_text(out)
    assert code == 0
    assert parse_settings(out, "x", tmp_path).destination().resources.disk.limit == "200Gi"


def test_check_as_json_shows_no_value_of_a_variable(tmp_path: Path) -> None:
    conf, more = tmp_path / "job_conf.xml", tmp_path / "galaxy.yml"
    more.write_text("galaxy: {s3runner_bucket: bkt, outputs_to_working_directory: true}")
    conf.write_text(
        xml(
            '<param id="s3runner_cluster">local</param>',
            '<destination id="a" runner="s3">'
            '<param id="k8s_extra_job_envs">{TOKEN: secret-word}</param></destination>',
        )
    )
    code, out, _ = called("job-conf", "check", conf, "--galaxy-config", more, "--json")
    (found,) = json.loads(out)["destinations"]
    assert (code, found["id"], found["env"]) == (0, "a", ["TOKEN"])
    code, text, _ = called("job-conf", "check", conf, "--galaxy-config", more)
    assert "# variables of the tool: TOKEN\n" in text
    assert "secret-word" not in out + text


def test_check_tells_every_mistake_with_its_place(tmp_path: Path) -> None:
    conf = tmp_path / "job_conf.xml"
    one = '<destination id="{}" runner="s3"><param id="k8s_affinity">[</param></destination>'
    conf.write_text(xml(destinations="\n".join(("", one.format("a"), one.format("b")))))
    code, out, err = called("job-conf", "check", conf)

    assert (code, out) == (2, "")
    for name, line in (("a", 3), ("b", 4)):
        where = f"{conf}:{line}: destination {name}: "
        assert f"{where}k8s_affinity: not YAML" in err
        assert f"{where}docker_enabled: must be true" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--job-conf", CONF / "job_conf.yml"], "--job-conf needs --destination ID"),
        (["--galaxy-config", "x"], "--galaxy-config stands beside --job-conf only"),
        (
            ["--job-conf", CONF / "job_conf.yml", "--settings", "x"],
            "--settings and --job-conf: name one of them",
        ),
        (
            ["--job-conf", CONF / "job_conf.yml", "--destination", "spat"],
            "there is no destination 'spat' (did you mean 'spot'?)",
        ),
        (
            ["--job-conf", CONF / "job_conf.yml", "--destination", "local"],
            f"destination 'local' does not run by {RUNNER}",
        ),
    ],
)
@pytest.mark.parametrize(
    "verb", ["run", "submit", "plan", "wait", "sync", "cancel", "logs", "status", "ls", "cat"]
)
def test_a_verb_takes_a_destination_of_galaxy_or_settings(
    verb: str, words: list[str | Path], reason: str
) -> None:
    code, _, err = called(verb, "job.yml", *words)
    assert code == 2
    assert reason in err

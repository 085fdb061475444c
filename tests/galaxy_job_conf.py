"""The job configuration of the tests' Galaxy: one value, in both forms that Galaxy reads.

It stands apart from the server because it knows what runs where. Tools on a Kubernetes cluster run
at the destinations of conf/job_conf.yml.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import S3Access
from kube_api.sites import KUBECONFIG, REAL, Site
from lxml import etree

_CONF = Path(__file__).parents[1] / "conf"
_LOAD = "s3runner.galaxy.runner:S3JobRunner"
_BELOW = "store.yml"
REMOTE = "remote/indexes"
"""Where a data table says that indexes are, and in the bucket they are: not on this machine."""

_LONG_S = 1800
"""A store that a test takes away comes back later than it would on a machine with less to do."""

Params = Mapping[str, Any]


@dataclass(frozen=True)
class JobConf:
    """Plugins and destinations by their names, and where a tool runs if not at the default."""

    plugins: Mapping[str, Params]
    destinations: Mapping[str, Params]
    tools: Mapping[str, str]
    default: str = "pods"

    def as_yaml(self) -> str:
        """Return a job_conf.yml."""
        classes = [{"class": each, "environment": "local"} for each in ("local", "requires_galaxy")]
        document = {
            "runners": {name: {"workers": 2, **given} for name, given in self.plugins.items()},
            "execution": {"default": self.default, "environments": dict(self.destinations)},
            "tools": [
                *classes,
                *({"id": tool, "environment": name} for tool, name in self.tools.items()),
            ],
        }
        return yaml.safe_dump(document, sort_keys=False)

    def as_xml(self) -> str:
        """Return a job_conf.xml; what is no text in YAML is written as YAML."""
        root = etree.Element("job_conf")
        plugins = etree.SubElement(root, "plugins", workers="2")
        for name, given in self.plugins.items():
            attributes = {"id": name, "type": "runner", "load": given["load"]}
            _add_params(etree.SubElement(plugins, "plugin", attributes), given)
        destinations = etree.SubElement(root, "destinations", default=self.default)
        for name, given in self.destinations.items():
            attributes = {"id": name, "runner": given["runner"]}
            element = etree.SubElement(destinations, "destination", attributes)
            _add_params(element, given)
            for again in given.get("resubmit", ()):
                then = {"condition": again["condition"], "destination": again["environment"]}
                etree.SubElement(element, "resubmit", then)
        tools = etree.SubElement(root, "tools")
        for each in ("local", "requires_galaxy"):
            etree.SubElement(tools, "tool", {"class": each, "destination": "local"})
        for tool, name in self.tools.items():
            etree.SubElement(tools, "tool", id=tool, destination=name)
        return str(etree.tostring(root, encoding="unicode", pretty_print=True))


def _add_params(element: Any, given: Params) -> None:
    for name, value in given.items():
        if name not in ("load", "workers", "runner", "resubmit"):
            text = value if isinstance(value, str) else yaml.safe_dump(value).removesuffix("...\n")
            etree.SubElement(element, "param", id=name).text = text.strip()


def write_settings(directory: Path, access: S3Access, endpoints: Mapping[str, str]) -> None:
    """Write the file that the plugin `s3` names by a path which begins where its own file lies."""
    config = access.config
    store = {
        "url": f"s3://{config.bucket}/{config.prefix}",
        "endpoint": config.endpoint,
        "insecure_http": True,
        "retry_budget_s": _LONG_S,
        **endpoints,
    }
    remote = {"remote": {"url": f"s3://{config.bucket}/{REMOTE}", "path": f"/{REMOTE}"}}
    written = {"store": store, "references": remote}
    (directory / _BELOW).write_text(yaml.safe_dump(written))


def job_conf(site: Site | None) -> JobConf:
    """Return what runs where: on this machine's local cluster, unless a tool's id begins with k_.

    Without a site there is no Kubernetes.
    """
    own = {"runner": "s3", "outputs_to_working_directory": True}
    plugins: dict[str, Params] = {
        "local": {"load": "galaxy.jobs.runners.local:LocalJobRunner"},
        "s3": {"load": _LOAD, "s3runner_cluster": "local", "s3runner_settings": _BELOW},
    }
    destinations: dict[str, Params] = {
        "local": {"runner": "local"},
        "pods": own,
        "extended": {**own, "metadata_strategy": "extended"},
        "trusting": {**own, "s3runner_missing_outputs": "empty"},
        "small": {
            **own,
            "limits_memory": "64Mi",
            "s3runner_retry": {"memory_cap": "64Mi"},
            "resubmit": [{"condition": "memory_limit_reached", "environment": "large"}],
        },
        "large": {**own, "limits_cpu": "2", "limits_memory": "256Mi"},
        "short": {
            **own,
            "k8s_walltime_limit": 2,
            "k8s_extra_job_envs": {"SHORT": "yes"},
            "resubmit": [{"condition": "walltime_reached", "environment": "pods"}],
        },
    }
    tools = {
        "t_extended": "extended",
        "t_trusting": "trusting",
        "t_hungry": "small",
        "t_tardy": "short",
    }
    if site is not None:
        conf = yaml.safe_load((_CONF / "job_conf.yml").read_text())
        plugins["kube"] = {**conf["runners"]["s3"], **of_site(site)}
        for name, given in conf["execution"]["environments"].items():
            if given["runner"] == "s3":
                destinations[name if name == "spot" else f"kube-{name}"] = _at_site(given, site)
        spot = {**destinations["spot"], "s3runner_spot": {"max_evictions": 0}}
        again = [{"condition": "unknown_error", "environment": "spot"}]
        destinations["fragile"] = {**spot, "resubmit": again}
        tools |= {f"k_{name}": "spot" for name in ON_KUBERNETES} | {"k_fragile": "fragile"}
    return JobConf(plugins, destinations, tools)


ON_KUBERNETES = ("plain", "failing", "index", "collection", "work_dir", "hold", "slow")
"""The tools that are there once more, with k_ in their ids, in a container of a cluster."""


def of_site(site: Site) -> Params:
    """Return what conf/job_conf.yml cannot know: a cluster, its bucket and its images."""
    assert site.place is not None
    config, keys = site.access.config, site.place.credentials
    kubeconfig = os.environ[KUBECONFIG] if site.kube is None else str(site.kube.kubeconfig())
    return {
        "s3runner_bucket": config.bucket,
        "s3runner_prefix": config.prefix,
        "s3runner_endpoint": config.endpoint,
        "s3runner_pod_endpoint": site.pod_endpoint or config.endpoint,
        "s3runner_insecure_http": config.insecure_http,
        "s3runner_credentials": {
            "secret": keys.secret,
            "access_key": keys.access_key,
            "secret_key": keys.secret_key,
        },
        "s3runner_worker_image": site.worker_image,
        "k8s_namespace": site.place.namespace,
        "k8s_config_path": kubeconfig,
        "k8s_pull_policy": "IfNotPresent",
    }


def _at_site(given: Params, site: Site) -> Params:
    found = {**given, "runner": "kube"}
    if "resubmit" in given:
        found["resubmit"] = [
            {**again, "environment": f"kube-{again['environment']}"} for again in given["resubmit"]
        ]
    if site.kind == REAL:  # its nodes are not labelled for spot
        found |= {"k8s_node_selector": "", "s3runner_spot": ""}
    return found

"""The runner's own rules, with Galaxy's classes and without a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from galaxy_server import require_galaxy

pytestmark = pytest.mark.filterwarnings("ignore")  # of what Galaxy imports
require_galaxy_first = pytest.fixture(autouse=True)(require_galaxy)


def runner(**more: Any) -> Any:
    """Return a runner that was not started, with these attributes."""
    from s3runner.galaxy.runner import S3JobRunner  # noqa: PLC0415 # where there is a Galaxy

    made = object.__new__(S3JobRunner)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_job_that_cannot_be_looked_at_keeps_no_other_from_its_end() -> None:
    """One error must neither stop the monitor nor let it finish a job twice."""
    before, broken, after = (SimpleNamespace(job_id=name) for name in ("a", "b", "c"))
    seen: list[str] = []

    def look(state: Any) -> Any:
        seen.append(state.job_id)
        if state is broken:
            raise KeyError("containerStatuses")
        return None if state is before else state

    made = runner(
        watched=[before, broken, after],
        check_watched_item=look,
        _ask_galaxy_for_states=lambda: None,
    )

    made.check_watched_items()
    made.check_watched_items()

    assert made.watched == [broken, after]
    assert seen == ["a", "b", "c", "b", "c"]


@pytest.mark.parametrize("runner_of_the_known", ["s3", "dynamic"])
def test_a_resubmitted_jobs_destination_keeps_nothing_of_the_one_before(
    runner_of_the_known: str,
) -> None:
    """Galaxy lays the new destination's params over the old one's; a rule's are as it made them."""
    own = SimpleNamespace(id="large", runner=runner_of_the_known, params={"limits_memory": "1Gi"})
    config = SimpleNamespace(destinations={"large": [own]}, get_destination=lambda _id: own)
    made = runner(app=SimpleNamespace(job_config=config))
    mixed = {"limits_memory": "1Gi", "k8s_node_selector": "pool: spot"}

    found = made._own_params(SimpleNamespace(id="large", runner="s3", params=mixed))

    assert found == (own.params if runner_of_the_known == "s3" else mixed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"tool.produces_entry_points": True}, "interactive tools"),
        ({"tool.requires_galaxy_python_environment": True}, "Galaxy's own Python"),
        ({"tool.tool_type": "data_manager"}, "Galaxy's own Python"),
        ({"is_cwl_job": True}, "CWL"),
        ({"remote_command_line": True}, "tool_evaluation_strategy"),
        ({"outputs_to_working_directory": False}, "outputs_to_working_directory"),
    ],
)
def test_what_cannot_run_away_from_galaxy_is_refused_with_a_reason(
    changes: dict[str, object], reason: str | None
) -> None:
    """Before anything is staged."""
    from s3runner.galaxy.refusing import refusal_of  # noqa: PLC0415 # where there is a Galaxy

    tool = SimpleNamespace(
        produces_entry_points=False,
        requires_galaxy_python_environment=False,
        tool_type="default",
    )
    job = SimpleNamespace(
        tool=tool,
        is_cwl_job=False,
        remote_command_line=False,
        outputs_to_working_directory=True,
        get_job=lambda: SimpleNamespace(tasks=[]),
    )
    for name, value in changes.items():
        setattr(tool if name.startswith("tool.") else job, name.removeprefix("tool."), value)

    found = refusal_of(job)

    assert (found is None) is (reason is None)
    assert reason is None or reason in str(found)

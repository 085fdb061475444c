"""What a Galaxy job may be that cannot run away from Galaxy's own machine, and the reason.

It stands apart because these are sentences for users and administrators.
"""

from __future__ import annotations

from typing import Any

DATA_MANAGER = "manage_data"
"""Galaxy's `tool_type` of data managers."""

NO_CONTAINER = (
    "Galaxy found no container for this tool; give it one, name a docker_default_container_id "
    "with the destination, or map the tool to another"
)


def refusal_of(job_wrapper: Any) -> str | None:
    """Say why a job cannot run at this destination; None if nothing speaks against it.

    Galaxy's objects are only looked at.
    """
    tool = job_wrapper.tool
    reasons = {
        "interactive tools need a way into the pod, which s3runner does not make": (
            tool.produces_entry_points
        ),
        "the tool needs Galaxy's own Python or files; map it to a local runner": (
            tool.requires_galaxy_python_environment or tool.tool_type == DATA_MANAGER
        ),
        "the job is split into tasks, which is done on a shared disk": bool(
            job_wrapper.get_job().tasks
        ),
        "CWL tools end with a script that needs Galaxy's own Python": job_wrapper.is_cwl_job,
        "tool_evaluation_strategy: remote needs Galaxy in the tool's image": (
            job_wrapper.remote_command_line
        ),
        "outputs_to_working_directory must be true, of the destination or in galaxy.yml": (
            not job_wrapper.outputs_to_working_directory
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)

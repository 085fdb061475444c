"""S3JobRunner: Galaxy's job handler on one side, our verbs on the other.

Galaxy loads it by its name in the job configuration. It stands apart from the other modules of
this folder because only it has Galaxy's life cycle: queue, watch, finish, stop,
recover.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from galaxy import model
from galaxy.jobs.runners import AsynchronousJobRunner, AsynchronousJobState
from galaxy.tool_util.output_checker import DETECTED_JOB_STATE

from s3runner.errors import S3RunnerError
from s3runner.galaxy import params
from s3runner.galaxy.app_config import (
    config_of,
    dataset_directories,
    destinations_of,
    directory_of_job_conf,
    own_params,
)
from s3runner.galaxy.collecting import move_into_place, returned_by
from s3runner.galaxy.destinations import Place, Places
from s3runner.galaxy.endings import STOPPED, UNKNOWN, Ending, ending_of
from s3runner.galaxy.errand import Errand, Pools
from s3runner.galaxy.linking import disk_of, linkable, outputs_on
from s3runner.galaxy.pool import Pool
from s3runner.galaxy.recording import RecordingEnvironment, files_of_index, record_inputs
from s3runner.galaxy.refusing import NO_CONTAINER, refusal_of
from s3runner.galaxy.streams import streams_here
from s3runner.galaxy.telling import log_failure, refuse
from s3runner.galaxy.translate import (
    GalaxyJob,
    Returned,
    job_of,
    needed_of,
    with_empty_files,
)
from s3runner.model import Input, Job
from s3runner.runner.landing import STREAMS
from s3runner.runner.submission import new_job_id

__all__ = ("S3JobRunner",)

log = logging.getLogger(__name__)

_LOOKS = 4
"""Threads that ask cluster and store how jobs are: each look takes milliseconds."""

_RUNS = ("running", "staging_out")
_STATES = model.Job.states
_DELETED = (_STATES.DELETED, _STATES.DELETING)


class S3JobState(AsynchronousJobState):
    """A watched job, where it runs, its errand, and how it ended."""

    place: Place
    errand: Errand
    ending: Ending | None = None
    galaxy_state: str | None = None
    is_over_limit = False


class S3JobRunner(AsynchronousJobRunner):
    """Runs Galaxy's jobs in pods that share no file system with it."""

    runner_name = "S3JobRunner"
    watched: list[S3JobState]

    def __init__(self, app: Any, nworkers: int, **kwargs: Any) -> None:
        specs = params.runner_param_specs()
        super().__init__(app, nworkers, runner_param_specs=specs, **kwargs)
        own, base_dir = dict(self.runner_params), directory_of_job_conf(app.config)
        self._disk = disk_of(app.object_store, app.config.jobs_directory)
        self._places = Places(own, config_of(app.config), os.environ, base_dir, self._disk)
        workers = params.staging_workers(dict(self.runner_params))
        self._pools = Pools(Pool("s3runner-staging", workers), Pool("s3runner-looks", _LOOKS))
        self._errands: dict[str, Errand] = {}
        self._check_destinations(kwargs)

    def _check_destinations(self, given: dict[str, Any]) -> None:
        """Refuse at the start what no job could be run with. Raises SettingsError.

        Destinations that rules make up are looked at when they are there.
        """
        self._places.check(destinations_of(self.app.job_config, type(self).__name__, given))

    # Galaxy's life cycle, in the order in which a job meets it

    def queue_job(self, job_wrapper: Any) -> None:
        """Prepare the job and send it on its errand; called by one of Galaxy's worker threads."""
        destination = job_wrapper.job_destination
        destination.params = self._own_params(job_wrapper)
        refusal = refusal_of(job_wrapper)
        if refusal is not None:
            refuse(job_wrapper, refusal)
            return
        try:
            place = self._places.at(destination.id or "galaxy", destination.params)
            place.linking.require_mount()
        except S3RunnerError as error:
            refuse(job_wrapper, str(error), error.hint)
            return
        # noted before anything is stored: who starts next can then take the job up, or knows
        # that there is nothing to be taken up
        job_id = new_job_id()
        job_wrapper.set_job_destination(destination, job_id)
        log.info("(%s) is job %s at destination %s", job_wrapper.job_id, job_id, destination.id)
        state = self._state_of(job_wrapper, job_id)
        state.place = place
        recording = record_inputs(job_wrapper)
        if not self.prepare_job(
            job_wrapper, include_work_dir_outputs=False, modify_command_for_container=False
        ):
            return
        if place.needs_image and not job_wrapper.s3runner_image:
            refuse(job_wrapper, f"destination {destination.id}: {NO_CONTAINER}")
            return
        self._write_script(job_wrapper, state)
        state.errand = self._send(state, self._job_of(job_wrapper, state, recording))
        self.monitor_job(state)

    def check_watched_items(self) -> None:
        """Look at every job; one whose look fails keeps no other from its own."""
        self._ask_galaxy_for_states()
        watched = []
        for state in self.watched:
            try:
                kept = self.check_watched_item(state)
            except Exception:
                # Galaxy's own code raises anything here, and its loop would stop for every job
                log.exception("(%s) looking at the job failed; trying again", state.job_id)
                kept = state
            if kept is not None:
                watched.append(kept)
        self.watched = watched

    def check_watched_item(self, job_state: S3JobState) -> S3JobState | None:
        """Take up what is done and start what comes next; never wait."""
        errand, job_wrapper = job_state.errand, job_state.job_wrapper
        galaxy_state = job_state.galaxy_state
        is_deleted = galaxy_state in _DELETED
        # it is an error if an administrator has ended it with a message
        is_ended = is_deleted or galaxy_state == _STATES.ERROR
        if is_ended or (galaxy_state == _STATES.STOPPED and errand.end is None):
            errand.cancel()
        elif not job_state.is_over_limit and _is_over_limit(job_state):
            job_state.is_over_limit = True
            errand.cancel()
        if not errand.advance():
            if errand.state in _RUNS and not job_state.running:
                if galaxy_state == _STATES.QUEUED:
                    job_wrapper.change_state(_STATES.RUNNING)
                job_state.running = True
            return job_state
        self._errands.pop(errand.job_id, None)
        if is_ended:
            if job_wrapper.cleanup_job in (("always", "onsuccess") if is_deleted else ("always",)):
                job_wrapper.cleanup()
        else:
            self._conclude(job_state)
        return None

    def finish_job(self, job_state: S3JobState) -> None:
        """Let Galaxy collect what came back: streams, metadata, outputs."""
        job_wrapper = job_state.job_wrapper
        if not job_state.place.linking.is_mounted():
            # Galaxy would find all of them empty
            self._fail(job_state, UNKNOWN, "s3runner: the mounted bucket shows no results any more")
            return
        streams = Path(job_wrapper.working_directory) / STREAMS
        for name, place in (("stdout", job_state.output_file), ("stderr", job_state.error_file)):
            source = streams / name
            if source.exists():
                shutil.copyfile(source, place)
            else:
                Path(place).touch()
        move_into_place(self._returned_by(job_state).moved)
        if job_state.ending is not None and job_state.ending.missing:
            self._forbid_success(job_state, job_state.ending)
        self._handle_metadata_externally(job_wrapper, resolve_requirements=True)
        super().finish_job(job_state)

    def fail_job(
        self,
        job_state: Any,
        exception: bool = False,  # noqa: FBT001, FBT002  # Galaxy's signature
        message: str = "Job failed",
        full_status: dict[str, Any] | None = None,
    ) -> None:
        """Let Galaxy fail or resubmit the job, with what the tool said."""
        job_state.stop_job = False
        told = full_status or streams_here(job_state.job_wrapper, self._job_io_for_db)
        super().fail_job(job_state, exception=exception, message=message, full_status=told)

    def stop_job(self, job_wrapper: Any) -> None:
        """End a job that somebody deleted; it is watched until no pod of it can decide anything."""
        try:
            self._stop(job_wrapper)
        except Exception:
            # Galaxy would undo what it noted of all jobs that it stops now, and try for ever
            log.exception("(%s) stopping the job failed", job_wrapper.job_id)

    def _stop(self, job_wrapper: Any) -> None:
        job_id = job_wrapper.get_job().get_job_runner_external_id()
        if not job_id:
            return
        errand = self._errands.get(job_id)
        if errand is not None:
            # what has ended is not to be lost by a user who only stops it
            if errand.end is None:
                errand.cancel()
            return
        state = self._taken_up(job_wrapper, job_id)
        if state is not None:
            state.errand.cancel()
            self.monitor_job(state)

    def recover(self, job: Any, job_wrapper: Any) -> None:
        """Take up a job that was on its way when Galaxy ended."""
        state = self._taken_up(job_wrapper, job.get_job_runner_external_id())
        if state is not None:
            if job.get_state() == _STATES.RUNNING:
                state.running = True
            self.monitor_job(state)

    # its parts

    def _ask_galaxy_for_states(self) -> None:
        """Note the states of all watched jobs by one query: one for each takes most of a pass."""
        columns = (model.Job.id, model.Job.state)
        ids = [state.job_wrapper.job_id for state in self.watched]
        found = dict(self.sa_session.query(*columns).filter(model.Job.id.in_(ids)).all())
        for state in self.watched:
            state.galaxy_state = found.get(state.job_wrapper.job_id)

    def _own_params(self, job_wrapper: Any) -> dict[str, Any]:
        history = job_wrapper.get_job().state_history
        was_resubmitted = any(each.state == _STATES.RESUBMITTED for each in history)
        destination, config = job_wrapper.job_destination, self.app.job_config
        return own_params(config, destination) if was_resubmitted else dict(destination.params)

    def _find_container(self, job_wrapper: Any, *args: Any, **kwargs: Any) -> Any:
        """Remember the container: a look-up may ask the network, and the database notes each."""
        container = super()._find_container(job_wrapper, *args, **kwargs)
        job_wrapper.s3runner_image = container.container_id if container else None
        return container

    def _state_of(self, job_wrapper: Any, job_id: str) -> S3JobState:
        # by their names: Galaxy 25.1 has them in another order
        return S3JobState(
            job_wrapper=job_wrapper,
            job_destination=job_wrapper.job_destination,
            files_dir=os.path.abspath(job_wrapper.working_directory),
            job_id=job_id,
        )

    def _write_script(self, job_wrapper: Any, state: S3JobState) -> None:
        script = self.get_job_file(
            job_wrapper,
            exit_code_path=state.exit_code_file,
            shell=job_wrapper.shell,
            galaxy_virtual_env=None,
            galaxy_lib=None,
        )
        self.write_executable_script(state.job_file, script, job_io=job_wrapper.job_io)

    def _job_of(
        self, job_wrapper: Any, state: S3JobState, recording: RecordingEnvironment
    ) -> Callable[[], Job]:
        """Ask Galaxy what the job is; what disk and store have of it is looked up when called."""
        place = state.place
        directory = os.path.abspath(job_wrapper.working_directory)
        tool_dir = job_wrapper.tool.tool_dir
        galaxy = GalaxyJob(
            name=f"galaxy-{job_wrapper.get_id_tag()}",
            directory=directory,
            script=state.job_file,
            exit_code=state.exit_code_file,
            shell=job_wrapper.shell,
            returned=self._returned_by(state),
            touched=recording.touched(),
            tool_directory=os.path.abspath(tool_dir) if tool_dir else None,
            image=job_wrapper.s3runner_image,
            above=dataset_directories(self.app.config),
            env=place.options.env,
        )

        def files_of(path: str) -> list[Input]:
            found = place.referenced(path)
            return (
                list(found)
                if found is not None
                else [Input(each, each) for each in files_of_index(path)]
            )

        return lambda: place.chained(job_of(galaxy, files_of, place.holds))

    def _returned_by(self, state: S3JobState) -> Returned:
        job_wrapper = state.job_wrapper
        found = returned_by(job_wrapper, self.get_work_dir_outputs(job_wrapper))
        may_be_empty = state.place.options.missing_outputs == params.EMPTY
        return with_empty_files(found) if may_be_empty else found

    def _send(self, state: S3JobState, job: Callable[[], Job] | None) -> Errand:
        directory = Path(os.path.abspath(state.job_wrapper.working_directory))
        verbs = state.place.verbs(lambda: self._linkable(state))
        errand = Errand(verbs, state.job_id, directory, self._pools, job)
        self._errands[state.job_id] = errand
        return errand

    def _linkable(self, state: S3JobState) -> Mapping[str, str]:
        outputs = state.job_wrapper.job_io.get_output_fnames()
        return linkable(self._returned_by(state), outputs_on(self._disk, outputs))

    def _taken_up(self, job_wrapper: Any, job_id: str) -> S3JobState | None:
        """Return the state of a job that was given an id before; None if it cannot be followed."""
        destination = job_wrapper.job_destination
        state = self._state_of(job_wrapper, job_id)
        try:
            state.place = self._places.at(destination.id or "galaxy", destination.params)
        except S3RunnerError as error:
            state.fail_message = f"s3runner: {error}"
            self.mark_as_failed(state)
            return None
        state.errand = self._send(state, None)
        return state

    def _conclude(self, state: S3JobState) -> None:
        """Tell Galaxy how the job ended."""
        errand, job_wrapper = state.errand, state.job_wrapper
        if state.is_over_limit:
            self.mark_as_failed(state)
        elif errand.is_cancelled and errand.synced is None:
            self._fail(state, STOPPED, "s3runner: the job was stopped; nothing of it is here")
        elif errand.never_stored and state.galaxy_state == _STATES.QUEUED:
            # its spec was never stored, so there is no Job and never was one: begin anew
            self.mark_as_queued(job_wrapper)
        elif errand.never_stored:
            # Galaxy begins no job anew that it takes for a running one
            self._fail(state, UNKNOWN, f"s3runner: the bucket knows no job {errand.job_id}")
        elif errand.failure is not None or errand.end is None:
            hint = errand.failure.hint if isinstance(errand.failure, S3RunnerError) else ""
            self._fail(state, UNKNOWN, f"s3runner: {errand.failure}", hint)
        else:
            came = errand.synced.outputs if errand.synced is not None else ()
            needed = needed_of(
                state.exit_code_file,
                os.path.abspath(job_wrapper.working_directory),
                self._returned_by(state),
            )
            state.ending = ending_of(errand.end, needed, {each.path for each in came})
            if state.ending.state is None:
                self.mark_as_finished(state)
            else:
                self._fail(state, state.ending.state, state.ending.message)

    def _fail(self, state: S3JobState, runner_state: str, message: str, hint: str = "") -> None:
        log_failure(state.job_wrapper, message, hint)
        state.runner_state, state.fail_message = runner_state, message
        self.mark_as_failed(state)

    def _forbid_success(self, state: S3JobState, ending: Ending) -> None:
        """Make sure that Galaxy finds a tool's end wrong that has not written all its outputs.

        Galaxy itself would show empty datasets, if the tool's exit code is none of those that it
        takes for an error.
        """
        job_wrapper = state.job_wrapper
        check = job_wrapper.check_tool_output

        def strict(*args: Any, **kwargs: Any) -> Any:
            found = check(*args, **kwargs)
            return DETECTED_JOB_STATE.GENERIC_ERROR if found == DETECTED_JOB_STATE.OK else found

        log.warning("(%s) the tool has not written %s", state.job_id, ", ".join(ending.missing))
        job_wrapper.check_tool_output = strict


def _is_over_limit(state: S3JobState) -> bool:
    """Ask Galaxy; bringing results here does not count for the time that a tool may take."""
    return bool(state.check_limits(None if state.errand.end is None else timedelta(0)))

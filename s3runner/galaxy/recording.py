"""Which files a Galaxy job reads: what Galaxy itself touches while it writes the command.

It stands apart because it is called by Galaxy's tool evaluation. Nothing is read out of the
command line: each path is noted as it is handed to the tool's template.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import Any

from galaxy.job_execution.compute_environment import SharedComputeEnvironment

from s3runner.galaxy.translate import Touched


class RecordingEnvironment(SharedComputeEnvironment):
    """Tells Galaxy that all paths stay as they are, and notes them."""

    def __init__(self, job_io: Any, job: Any) -> None:
        super().__init__(job_io, job)
        self._files: dict[str, None] = {}
        self._indexes: dict[str, None] = {}

    def input_path_rewrite(self, dataset: Any) -> Any:
        """Note an input's file."""
        return self._noted(super().input_path_rewrite(dataset))

    def input_extra_files_rewrite(self, dataset: Any) -> Any:
        """Note an input's directory of extra files."""
        return self._noted(super().input_extra_files_rewrite(dataset))

    def input_metadata_rewrite(self, dataset: Any, metadata_value: Any) -> Any:
        """Note a metadata file, such as a BAM file's index."""
        self._noted(metadata_value)
        return super().input_metadata_rewrite(dataset, metadata_value)

    def unstructured_path_rewrite(self, path: Any) -> Any:
        """Note a path out of a data table, often what several files' names begin with."""
        if path:
            self._indexes[str(path)] = None
        return super().unstructured_path_rewrite(path)

    def touched(self) -> Touched:
        """Return what was noted, and every other file of the job's inputs that is there.

        A template can reach an input in ways that ask for no path.
        """
        for path in self.job_io.get_input_fnames():
            self._noted(path)
        return Touched(tuple(self._files), tuple(self._indexes))

    def _noted(self, path: Any) -> Any:
        if path and os.path.isabs(str(path)):
            self._files[str(path)] = None
        return path


def record_inputs(job_wrapper: Any) -> RecordingEnvironment:
    """Have Galaxy prepare this job with an environment that notes what it touches."""
    environment = RecordingEnvironment(job_wrapper.job_io, job_wrapper.get_job())
    job_wrapper.default_compute_environment = lambda _job=None: environment
    return environment


def files_of_index(path: str) -> Iterator[str]:
    """Yield what a data table's path stands for: a directory, or all files that begin with it.

    Where it is a file itself, as a sequence is, a tool still opens the index beside it.
    """
    if os.path.isdir(path):
        yield path
    else:
        yield from filter(os.path.exists, sorted(glob.glob(f"{glob.escape(path)}*")))

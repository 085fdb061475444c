"""What a mount of a bucket in memory would show: its objects as files."""

from __future__ import annotations

from pathlib import Path

from memory_store import MemoryStore


class MountedStore:
    """A directory that shows a store's objects as they were when it was last refreshed."""

    def __init__(self, directory: Path, store: MemoryStore) -> None:
        self.directory = directory
        self._store = store
        directory.mkdir()

    def refresh(self) -> None:
        """Show what is in the store now."""
        for key, body in self._store.objects.items():
            path = self.directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

"""A file `s3runner.yml` below the parameters of Galaxy, so that both may say a part.

It stands apart because it reads files, and the parameters are plain values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s3runner.settings import load_settings
from s3runner.settings_model import split_url
from s3runner.yamlfile import read_yaml


def settings_below(path: Path, destination: str | None) -> dict[str, Any]:
    """Return store, references and one destination of a settings file, for parameters to lie over.

    Relative paths of the file start at its folder. Raises SettingsError with the file's lines.
    """
    settings = load_settings(path)
    name = settings.destination(destination).name
    written: Any = read_yaml(path).data
    store = {**written["store"]}
    bucket, prefix = split_url(store.pop("url"))
    chosen = {**((written.get("destinations") or {}).get(name) or {})}
    for values, key in ((store, "ca_bundle"), (chosen, "kubeconfig")):
        if values.get(key) is not None:
            values[key] = str(settings.base_dir / Path(values[key]).expanduser())
    return {
        "store": {**store, "bucket": bucket, "prefix": prefix},
        "references": written.get("references") or {},
        "destination": {"cluster": "local", **chosen},
    }

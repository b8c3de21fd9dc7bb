"""Checkpoints from the Hugging Face Hub: settings and sizes first, then the files, without a login.

No token is ever sent. Four kinds of files are asked for and no other: config.json, safetensors weights,
tokenizer.json and preprocessor_config.json. Downloads come into a folder that lives until the model is in memory, so
the disk does not fill up; a copy in the user's own Hub cache serves instead, and also when there is no connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.models import intake


def fetch(repo: str, folder: Path, kind: str = "causal-lm") -> intake.Files:
    """The checkpoint of the public repository `repo` (owner/name); what must be downloaded comes into `folder`.

    kind: one of intake.KINDS. Before its weights are asked for, config.json and preprocessor_config.json pass their
    checks in intake.py, the parameters are counted and the files' sizes are added up.
    UserError: off-line, no such repository, gated, too large, refused, a file missing."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return _collect(repo, _Online(repo, folder), kind)
    except GatedRepoError as error:
        raise UserError(f"{repo} is gated: its owner asks for a login; please choose a public checkpoint.") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"There is no public repository {repo} on the Hugging Face Hub; please check the spelling."
        ) from error
    except HfHubHTTPError as error:
        raise UserError(f"The Hugging Face Hub cannot send {repo} now; please try again later.") from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        if _cached(repo, intake.CONFIG, None) is None:
            raise UserError(
                f"The Hugging Face Hub cannot be reached, so {repo} cannot be loaded; "
                "please choose a model that comes with TokenLab."
            ) from error
    return _collect(repo, _Offline(repo), kind)


class _Source(Protocol):
    def size(self, file: str) -> int | None:
        """Bytes of a file; None when the repository has no such file."""

    def path(self, file: str) -> Path:
        """Where the file lies on this machine, once it is there."""


def _collect(repo: str, source: _Source, kind: str) -> intake.Files:
    config = _read(repo, source, intake.CONFIG, limits.CONFIG_BYTES)
    model, _ = intake.build(intake.check_config(config, repo, kind), repo, kind)
    if source.size(intake.WEIGHTS) is not None:
        weights = [intake.WEIGHTS]
    elif source.size(intake.INDEX) is not None:
        weights = intake.shards(_read(repo, source, intake.INDEX, limits.HEADER_BYTES), repo)
    else:
        raise intake.no_weights(repo, source.size("pytorch_model.bin") is not None)
    intake.check_weight_bytes(sum(source.size(file) or 0 for file in weights), repo, kind)
    others = {file: _read(repo, source, file, most) for file, most in intake.FILES[kind].items()}
    if intake.PREPROCESSOR in others:
        intake.check_preprocessor(others[intake.PREPROCESSOR], intake.vision_config(model.config), repo)
    return intake.Files(config, tuple(_path(repo, source, file) for file in weights), others)


def _read(repo: str, source: _Source, file: str, most: int) -> bytes:
    if (source.size(file) or 0) > most:
        raise UserError(f"{file} of {repo} is larger than {most / 1e6:g} MB; please choose another checkpoint.")
    return intake.read_plain(_path(repo, source, file), most, repo)


def _path(repo: str, source: _Source, file: str) -> Path:
    if source.size(file) is None:
        raise UserError(f"{repo} has no {file}; please choose another checkpoint.")
    return source.path(file)


class _Online:
    """The repository as it is now; the commit of the first answer holds for all files."""

    def __init__(self, repo: str, folder: Path):
        self.repo, self.folder = repo, folder
        self.revision: str | None = None
        self.sizes: dict[str, int | None] = {}

    def size(self, file: str) -> int | None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        if file not in self.sizes:
            url = hf_hub_url(self.repo, file, revision=self.revision)
            try:
                found = get_hf_file_metadata(url, token=False, timeout=limits.CONNECT_SECONDS)
            except EntryNotFoundError:
                self.sizes[file] = None
            else:
                self.revision = self.revision or found.commit_hash
                # A file of unknown size counts as too large for any limit.
                self.sizes[file] = 2**63 if found.size is None else found.size
        return self.sizes[file]

    def path(self, file: str) -> Path:
        from huggingface_hub import hf_hub_download

        return _cached(self.repo, file, self.revision) or Path(
            hf_hub_download(
                self.repo,
                file,
                revision=self.revision,
                local_dir=self.folder,
                token=False,
                etag_timeout=limits.CONNECT_SECONDS,
            )
        )


class _Offline:
    """The copy in the user's own Hub cache."""

    def __init__(self, repo: str):
        self.repo = repo

    def size(self, file: str) -> int | None:
        path = _cached(self.repo, file, None)
        return None if path is None else path.stat().st_size

    def path(self, file: str) -> Path:
        return _cached(self.repo, file, None)


def _cached(repo: str, file: str, revision: str | None) -> Path | None:
    """The cache's own copy: its snapshots are links to blobs, which are plain files."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, revision=revision)
    return Path(found).resolve() if isinstance(found, str) else None

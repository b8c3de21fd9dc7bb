"""Tokenizers that need the internet once: tiktoken's encodings and files from the Hugging Face Hub."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenlab import limits
from tokenlab.errors import UserError

if TYPE_CHECKING:
    import tiktoken

HUB_FILES = ("tokenizer.json", "tokenizer.model")


@lru_cache(maxsize=1)
def tiktoken_names() -> tuple[str, ...]:
    import tiktoken

    return tuple(tiktoken.list_encoding_names())


def tiktoken_encoding(name: str) -> tiktoken.Encoding:
    """A tiktoken encoding, from its cache or downloaded. UserError: no internet the first time."""
    import tiktoken

    try:
        return in_time(
            limits.TIKTOKEN_SECONDS,
            f"tiktoken:{name}",
            lambda: tiktoken.get_encoding(name),
            f"{name} is still being downloaded; please try again in a minute.",
        )
    except OSError as error:
        raise UserError(
            f"{name} needs the internet the first time, and it cannot be reached now; "
            "please choose a tokenizer that comes with TokenLab."
        ) from error


def hub_file(repo: str) -> tuple[bytes, str]:
    """The tokenizer.json of a public Hub repository (else its tokenizer.model) and the file's name.

    No token is ever sent. A copy in the user's own Hub cache serves when there is no connection.
    UserError: off-line, no such repository, gated, no such file, too large, too slow."""
    return in_time(
        limits.HUB_SECONDS,
        f"hub:{repo}",
        lambda: _hub_file(repo),
        f"The Hugging Face Hub took too long to send {repo}; please try again later.",
    )


def _hub_file(repo: str) -> tuple[bytes, str]:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        for filename in HUB_FILES:
            try:
                found = get_hf_file_metadata(hf_hub_url(repo, filename), token=False, timeout=limits.CONNECT_SECONDS)
            except EntryNotFoundError:
                continue
            _check_size(found.size, repo)
            with tempfile.TemporaryDirectory(prefix="tokenlab-") as folder:
                path = _cached(repo, filename, found.commit_hash) or hf_hub_download(
                    repo,
                    filename,
                    revision=found.commit_hash,
                    local_dir=folder,
                    token=False,
                    etag_timeout=limits.CONNECT_SECONDS,
                )
                return _read(path, repo), filename
    except GatedRepoError as error:
        raise UserError(
            f"{repo} is gated: its owner asks for a login; please download its tokenizer.json and upload it here."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"There is no public repository {repo} on the Hugging Face Hub; please check the spelling."
        ) from error
    except HfHubHTTPError as error:
        raise UserError(f"The Hugging Face Hub cannot send {repo} now; please try again later.") from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        return _offline(repo, error)
    raise UserError(f"{repo} has neither {' nor '.join(HUB_FILES)}; please choose another repository.")


def _offline(repo: str, error: Exception) -> tuple[bytes, str]:
    for filename in HUB_FILES:
        path = _cached(repo, filename, None)
        if path:
            return _read(path, repo), filename
    raise UserError(
        f"The Hugging Face Hub cannot be reached, so {repo} cannot be loaded; "
        "please choose a tokenizer that comes with TokenLab or upload a file."
    ) from error


def _cached(repo: str, filename: str, revision: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, revision=revision)
    return found if isinstance(found, str) else None


def _read(path: str, repo: str) -> bytes:
    _check_size(Path(path).stat().st_size, repo)
    return Path(path).read_bytes()


def _check_size(size: int | None, repo: str) -> None:
    if size is None or size > limits.FILE_BYTES:
        raise UserError(
            f"The tokenizer of {repo} is larger than {limits.FILE_BYTES / 1e6:g} MB; please choose another repository."
        )


_running: dict[str, Future] = {}
_lock = threading.Lock()


def in_time(seconds: float, key: str, work: Callable[[], Any], late: str) -> Any:
    """work(), or UserError(late) after `seconds`. The work goes on; whoever asks for `key` again joins it."""
    with _lock:
        future = _running.get(key)
        if future is None:
            future = _running[key] = Future()
            threading.Thread(target=_fulfil, args=(future, key, work), daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if future.done():  # the work itself raised it
            raise
        raise UserError(late) from None


def _fulfil(future: Future, key: str, work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  handed on to whoever waits
        future.set_exception(error)
    finally:
        with _lock:
            del _running[key]

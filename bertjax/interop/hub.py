"""Models by their names on the Hugging Face hub: where they are on this disk, downloaded if new."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from bertjax.program.errors import UserError
from bertjax.program.output_directory import refuse_partial

# What is downloaded: nothing that would have to be unpickled, and no other library's weights.
ALLOWED = ("*.safetensors", "*.json", "vocab.txt", "merges.txt")
# What `bertjax convert` downloads beside it, of PyTorch.
PICKLED_NAMES = "pytorch_model*.bin"
IGNORED = ("onnx/*", "openvino/*", "coreml/*", ".*")

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


class HubName(NamedTuple):
    """The name of a model on the hub.

    Attributes:
        repo: organisation and name, with a slash between them.
        revision: a branch, a tag or a commit; None for the newest of the main branch.
    """

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return self.repo + (f"@{self.revision}" if self.revision else "")


def hub_name(name: Path | str) -> HubName | None:
    """Returns the model on the hub that a name means, where it does not mean a place on this disk.

    `org/name` means a place where there is one, and where `org` is a folder here: a mistake in a
    path asks no server anything. `org/name@revision` means the hub wherever it is no place itself.

    Args:
        name: of a model, as a user gives it.
    """
    match = _NAME.fullmatch(os.fspath(name))
    if match is None or os.path.lexists(name):
        return None
    repo, revision = match["repo"], match["revision"]
    organisation = repo.split("/")[0]
    if organisation in (".", "..") or (revision is None and os.path.isdir(organisation)):
        return None
    return HubName(repo, revision)


def find_model(name: Path | str, *, pickled: bool = False) -> Path:
    """Finds the directory of a model: the folder of that name, or else of a model on the hub.

    A model on the hub is kept in its cache (`HF_HOME`, `HF_HUB_CACHE`) and downloaded to it where
    it is not there; `HF_HUB_OFFLINE=1` takes it from there alone. Of the files safetensors, JSON,
    vocab.txt and merges.txt are downloaded.

    Args:
        name: a folder, or `org/name[@revision]`. What is neither is given back as it is, for its
            reader to refuse.
        pickled: take PyTorch's pickled weights from the hub where it has no safetensors.

    Raises:
        UserError: there is no name, or that of a directory that was never finished; or the hub has
            no such model, or does not give it, or only one that is pickled; or it is not reached
            and the cache has no such model.
    """
    if not os.fspath(name).strip():
        raise UserError("the model has no name: give a directory, or ORGANISATION/NAME on the hub")
    hub = hub_name(name)
    if hub is None:
        refuse_partial(Path(name))
        return Path(name)
    import huggingface_hub
    from huggingface_hub import errors

    def download(*more: str) -> Path:
        folder = huggingface_hub.snapshot_download(
            hub.repo,
            revision=hub.revision,
            allow_patterns=[*ALLOWED, *more],
            ignore_patterns=list(IGNORED),
        )
        return Path(folder)

    try:
        folder = download()
        has_safetensors = any(folder.rglob("*.safetensors"))
        if pickled and not has_safetensors:
            folder = download(PICKLED_NAMES)
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{hub}: the Hugging Face hub has {hub.repo}, and no branch, tag or commit"
            f" {hub.revision} of it; look it up under 'Files and versions' of the model"
        ) from None
    except errors.GatedRepoError:
        raise UserError(
            f"{hub}: the Hugging Face hub gives this model to those who have accepted its terms:"
            f" accept them on the page of the model, then {_SIGN_IN}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{hub}: no such directory, and the Hugging Face hub has no public model of this name;"
            f" is it misspelt? If it is private, {_SIGN_IN}"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise _not_reached(hub, error) from None
    except errors.HfHubHTTPError as error:
        raise _refused(hub, error) from None
    except errors.HFValidationError as error:
        raise UserError(
            f"{hub}: no such directory, and no name of a model on the Hugging Face hub ({error})"
        ) from None
    if not has_safetensors and not (pickled and any(folder.rglob(PICKLED_NAMES))):
        raise _no_safetensors(hub)
    return folder


_SIGN_IN = "sign in with `hf auth login`, or set HF_TOKEN to a token that may read it"


def _not_reached(hub: HubName, error: Exception) -> UserError:
    from huggingface_hub import constants, errors

    cause = error.__cause__
    if isinstance(cause, errors.HfHubHTTPError):
        return _refused(hub, cause)
    if isinstance(cause, errors.OfflineModeIsEnabled):
        why, way_out = "HF_HUB_OFFLINE forbids to ask the Hugging Face hub", "unset it once"
    else:
        why = f"the Hugging Face hub is not reached ({_first_line(cause or error)})"
        way_out = "try again with a connection"
    what = "no such directory, and the whole model is not in the cache"
    return UserError(f"{hub}: {what} {constants.HF_HUB_CACHE}; {why}: {way_out}")


def _refused(hub: HubName, error: Exception) -> UserError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return UserError(
            f"{hub}: no such directory, and the Hugging Face hub does not give the model"
            f" ({status}): it is private, or has terms to accept; {_SIGN_IN}"
        )
    return UserError(
        f"{hub}: no such directory, and the Hugging Face hub answers with an error"
        f" ({_first_line(error)}); try again later"
    )


def _no_safetensors(hub: HubName) -> UserError:
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(hub.repo, revision=hub.revision)
    except OSError:  # offline: what is in the cache has none
        files = []
    pickled = [name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
    if pickled:
        return UserError(
            f"{hub}: has {pickled[0]} and no safetensors; it is not read because unpickling runs"
            " code: make a model directory of it with"
            f" `bertjax convert --model {hub} --output DIR`, or take a revision that has been"
            " converted (refs/pr/... of the hub's converter)"
        )
    return UserError(f"{hub}: has no safetensors, so that it is no model that bertjax reads")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]

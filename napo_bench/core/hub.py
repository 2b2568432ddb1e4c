"""The Hugging Face hub: an exception of its library as one message."""

from __future__ import annotations

from napo_bench.core.errors import NapoBenchError


def not_fetched(page: str, error: Exception, what: str = "") -> NapoBenchError:
    """The error for a repository that cannot be fetched. The error says if the repository asks for a login.

    Args:
        page: Address of the repository.
        error: Exception of `huggingface_hub`.
        what: Words before "cannot be fetched"; the address by default.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    subject = f"{what or page} cannot be fetched"
    if isinstance(error, GatedRepoError):
        return NapoBenchError(
            f"{subject}: its authors ask for a login, and for consent to their conditions.",
            f"Accept the conditions at {page}, then `hf auth login` (or set HF_TOKEN), and run the same command again.",
        )
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, RepositoryNotFoundError):
        hint = "Check the name. A private repository needs `hf auth login` or HF_TOKEN."
    else:
        hint = "Check the name and the network, and run the same command again. $HF_ENDPOINT names a mirror of the hub."
    return NapoBenchError(f"{subject}: {reason}", hint)

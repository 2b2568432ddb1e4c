"""Digests of images that an engine has looked at before, so that a stored answer is found without the image.

The key of an answer has the digest of the image as the model sees it, which takes decoding, padding and hashing. The
journal keeps this digest by the SHA-256 of the encoded image, and by everything else that the digest depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import PIL
from PIL import features

from napo_bench.core.journal import journal_key
from napo_bench.engines.prompt import PromptWriter, Seen
from napo_bench.engines.request import Picture, Request

_VERSION = 1
"""Version of the code that decodes and prepares images. Another number looks at every image again."""
_DECODERS = ("libjpeg_turbo", "webp", "libtiff")


class Looks:
    """The digests of images by the SHA-256 of their encoded bytes.

    Args:
        writer: Engine, or what prepares its images.
        fingerprint: Identity of the model.
        asked_in: Name of the conversation, on which the preparation of an image depends; None if there is one alone.
    """

    def __init__(self, writer: PromptWriter, fingerprint: str, asked_in: str | None) -> None:
        self._writer = writer
        self._depends = {
            "engine": fingerprint,
            "asked_in": asked_in,
            "version": _VERSION,
            "decoders": [PIL.__version__, *map(features.version, _DECODERS)],
        }
        self._digests: dict[str, str] = {}

    def key(self, content: str) -> str:
        """The key of a digest in the journal.

        Args:
            content: SHA-256 of an encoded image.
        """
        return journal_key(content=content, **self._depends)

    def learn(self, contents: Iterable[str], stored: Mapping[str, object]) -> set[str]:
        """Take up digests of the journal, and say of which images a digest is known.

        Args:
            contents: SHA-256 of encoded images.
            stored: Values of the journal by key.
        """
        wanted = set(contents)
        for content in wanted - self._digests.keys():
            digest = stored.get(self.key(content))
            if isinstance(digest, str):
                self._digests[content] = digest
        return wanted & self._digests.keys()

    def look(self, picture: Picture) -> Seen:
        """An image, which is not opened if its digest is known. Raises NapoBenchError as `PromptWriter.look`."""
        digest = self._digests.get(picture.content)
        return Seen(digest) if digest is not None else self._writer.look(picture)

    def entry(self, request: Request, seen: Sequence[Seen]) -> dict[str, str]:
        """What the journal needs to know the image of a request again: a key and a digest. Empty if the digest is known
        already, if the encoded image has no digest, or if the request has several images.
        """
        if len(seen) != 1 or not request.pictures[0].content:
            return {}
        content, digest = request.pictures[0].content, seen[0].digest
        return {} if self._digests.get(content) == digest else {self.key(content): digest}

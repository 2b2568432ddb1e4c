"""The text pipelines, which read the words of answers for AMBER and CHAIR.

`official` is the pipeline that the benchmarks prescribe: NLTK's tokenizer and tagger, WordNet's noun lemmas, spaCy's
word vectors. `closed_vocabulary` needs no data and works for worlds whose words are known.
"""

from __future__ import annotations

import bisect
import importlib.metadata
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError, unknown_name

PIPELINES = ("official", "closed_vocabulary")
NOUN_TAGS = ("NN", "NNS", "NNP", "NNPS")
NLTK_RESOURCES = {
    "punkt_tab": "tokenizers/punkt_tab",
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng",
    "wordnet": "corpora/wordnet",
}
"""NLTK data that the official pipeline reads: package -> its path in NLTK's data folders."""

_SPACY_COMPONENTS = (
    "transformer",
    "tok2vec",
    "tagger",
    "morphologizer",
    "parser",
    "senter",
    "attribute_ruler",
    "lemmatizer",
    "ner",
)
# WordNet's rules of detachment for nouns (morphy(7WN)), in NLTK's order.
_NOUN_ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)
_NEAR = 1e-4
# Exceptions of NLTK, spaCy and zipfile if a file is cut, empty, foreign or forbidden.
_DAMAGE = (OSError, ValueError, KeyError, IndexError, EOFError, ImportError, zipfile.BadZipFile, zlib.error)


class Word(NamedTuple):
    """A token of a text.

    Attributes:
        surface: The token.
        lemma: Noun lemma of the token.
        place: Index of the word that contains the token; words are what blanks separate.
    """

    surface: str
    lemma: str
    place: int


class TextPipeline(Protocol):
    """The functions that scorers need to read a text."""

    @property
    def description(self) -> dict[str, str]:
        """Name and versions of the pipeline, which are part of every result."""

    def words(self, text: str) -> list[Word]:
        """Every token of the lower-cased text."""

    def nouns(self, text: str) -> list[Word]:
        """The tokens that are nouns, in the case that the pipeline gives."""

    def similar(self, words: Iterable[str], threshold: float) -> dict[str, frozenset[str]]:
        """For each word, the members of `words` whose similarity to the word is above `threshold`, including the
        word.
        """


def open_pipeline(name: str, vocabulary: Iterable[str], spacy_model: str | None = None) -> TextPipeline:
    """The text pipeline with this name.

    Args:
        name: One of PIPELINES.
        vocabulary: Words of the benchmark, which are all words of the closed vocabulary.
        spacy_model: Name or path of the spaCy model whose vectors the official pipeline uses; None for a benchmark that
            needs neither nouns nor similar words.

    Raises:
        NapoBenchError: there is no such pipeline, or its data is not installed. The error gives the command that
            installs the data.
    """
    if name == "closed_vocabulary":
        return ClosedVocabularyText(vocabulary)
    if name == "official":
        return OfficialText(spacy_model)
    raise unknown_name("text pipeline", name, PIPELINES)


class OfficialText:
    """NLTK's words and tags, WordNet's lemmas, spaCy's vectors.

    Args:
        spacy_model: See `open_pipeline`.

    Raises:
        NapoBenchError: data is not installed or damaged. The error gives the commands.
    """

    def __init__(self, spacy_model: str | None = None) -> None:
        missing, damaged = self._load_nltk(tagger=spacy_model is not None)
        problems, commands = list(damaged.values()), []
        if damaged:
            commands.append(f"Move what is damaged away, then: python -m nltk.downloader --force {' '.join(damaged)}")
        if missing:
            problems.insert(0, f"The official text pipeline needs data that is not installed: {', '.join(missing)}.")
            commands.insert(0, f"python -m nltk.downloader {' '.join(missing)}")
        self._nlp = None
        if spacy_model is not None:
            try:
                with _hidden("torch", "scipy", "sklearn"):
                    import spacy  # noqa: F401
                self._nlp = load_spacy(spacy_model, exclude=_SPACY_COMPONENTS)
                _require_vectors(self._nlp, spacy_model)
            except NapoBenchError as error:
                problems.append(error.message)
                commands.append(error.hint)
        if problems:
            raise NapoBenchError("\n".join(problems), "\n".join(commands))
        self.description = self._describe()

    def _load_nltk(self, tagger: bool) -> tuple[list[str], dict[str, str]]:
        """Load NLTK's packages, and return the missing packages and the damaged packages with their damage."""
        missing: list[str] = []
        damaged: dict[str, str] = {}
        with _hidden("scipy", "sklearn"):
            from nltk.tag.perceptron import PerceptronTagger
            from nltk.tokenize import word_tokenize

        def load(package: str, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except _DAMAGE as error:
                damaged[package] = _damage(f"NLTK's {package}", _nltk_files(package), error)
            except LookupError:
                missing.append(package)

        def tokenizer() -> Any:
            word_tokenize("a")
            for file in (file for place in _nltk_files("punkt_tab") for file in place.glob("english/*")):
                if not file.stat().st_size:
                    raise ValueError(f"{file.name} is empty")
            return word_tokenize

        self._tokenize = load("punkt_tab", tokenizer)
        self._tagger = load("averaged_perceptron_tagger_eng", PerceptronTagger) if tagger else None
        self._lemma = load("wordnet", NounLemmas)
        return missing, damaged

    def _describe(self) -> dict[str, str]:
        description = {"name": "official", "nltk": importlib.metadata.version("nltk")}
        if self._nlp is not None:
            description["spacy"] = importlib.metadata.version("spacy")
            description["spacy_model"] = spacy_model_name(self._nlp)
        return description

    def words(self, text: str) -> list[Word]:
        """Tokens of the lower-cased text, each lemmatised as a noun."""
        return [Word(token, self._lemma(token), place) for token, place in _placed(self._tokenize(text.lower()), text)]

    def nouns(self, text: str) -> list[Word]:
        """Tokens that NLTK tags NN, NNS, NNP or NNPS, with their case and their lemmas."""
        assert self._tagger is not None, "a pipeline opened without a spaCy model has no tagger"
        tokens = self._tokenize(text)
        tagged = zip(_placed(tokens, text), self._tagger.tag(tokens), strict=True)
        return [Word(token, self._lemma(token), place) for (token, place), (_, tag) in tagged if tag in NOUN_TAGS]

    def similar(self, words: Iterable[str], threshold: float) -> dict[str, frozenset[str]]:
        """Words whose spaCy similarity is above `threshold`.

        All cosines are computed at once. spaCy decides about a pair so near the threshold that rounding matters.
        """
        assert self._nlp is not None, "a pipeline opened without a spaCy model has no vectors"
        distinct = list(dict.fromkeys(words))
        docs = [self._nlp(word) for word in distinct]
        norms = np.array([doc.vector_norm for doc in docs], dtype=np.float64)
        units = np.stack([doc.vector for doc in docs]) / np.where(norms > 0, norms, 1.0)[:, None]
        cosines = units @ units.T
        above = cosines > threshold
        for i, j in np.argwhere(np.abs(cosines - threshold) < _NEAR):
            above[i, j] = docs[i].similarity(docs[j]) > threshold
        np.fill_diagonal(above, True)
        return {
            word: frozenset(distinct[j] for j in np.flatnonzero(row)) for word, row in zip(distinct, above, strict=True)
        }


class ClosedVocabularyText:
    """Words by a regular expression. Nouns are the words of the vocabulary, also in the plural. Only equal words are
    similar.

    Args:
        vocabulary: Words; a term of several words counts as its words.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._vocabulary = {word.lower() for term in vocabulary for word in term.split()}
        self.description = {"name": "closed_vocabulary"}

    def words(self, text: str) -> list[Word]:
        """Words of the lower-cased text, each in the singular if the vocabulary contains the singular."""
        tokens = re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())
        return [Word(token, self._lemma(token), place) for token, place in _placed(tokens, text)]

    def nouns(self, text: str) -> list[Word]:
        """Words of the lower-cased text that the vocabulary contains."""
        return [word for word in self.words(text) if word.lemma in self._vocabulary]

    def similar(self, words: Iterable[str], threshold: float) -> dict[str, frozenset[str]]:
        """Each word is similar only to itself."""
        return {word: frozenset({word}) for word in words}

    def _lemma(self, token: str) -> str:
        if token in self._vocabulary:
            return token
        for plural, singular in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man")):
            stem = token.removesuffix(plural) + singular
            if token.endswith(plural) and stem in self._vocabulary:
                return stem
        return token


def _placed(tokens: Sequence[str], text: str) -> list[tuple[str, int]]:
    """Each token of a text with the index of the word that contains it.

    NLTK writes some marks in another way (`"` as two accents). Such a token has the place of the token before it.
    """
    text = text.lower()
    starts = [word.start() for word in re.finditer(r"\S+", text)]
    found, at, place = [], 0, 0
    for token in tokens:
        start = text.find(token.lower(), at)
        if start >= 0:
            at = start + len(token)
            place = bisect.bisect_right(starts, start) - 1
        found.append((token, place))
    return found


class NounLemmas:
    """WordNet's noun lemmas, equal to `nltk.stem.WordNetLemmatizer().lemmatize`.

    Only WordNet's nouns and their exceptions are read, in 0.1 s. NLTK's reader indexes the whole of WordNet in 3 s.

    Raises:
        LookupError: NLTK does not find WordNet.
        ValueError: a file of WordNet is cut.
    """

    def __init__(self) -> None:
        self._nouns = {line.split(" ", 1)[0] for line in _wordnet_lines("index.noun") if not line.startswith(" ")}
        self._exceptions = {form: lemmas for form, *lemmas in map(str.split, _wordnet_lines("noun.exc"))}
        self._known: dict[str, str] = {}

    def __call__(self, word: str) -> str:
        """The shortest lemma of the word, or the word if WordNet has no lemma."""
        lemma = self._known.get(word)
        if lemma is None:
            lemma = self._known[word] = min(self._lemmas(word), key=len, default=word)
        return lemma

    def _lemmas(self, word: str) -> Iterator[str]:
        forms: Sequence[str] = self._exceptions.get(word) or [
            word[: -len(ending)] + replacement for ending, replacement in _NOUN_ENDINGS if word.endswith(ending)
        ]
        return (form for form in (word, *forms) if form in self._nouns)


def load_spacy(model: str, exclude: Sequence[str]) -> Any:
    """A spaCy pipeline.

    Args:
        model: Name of an installed model, or path of a model folder.
        exclude: Components that are not loaded.

    Raises:
        NapoBenchError: the model does not exist or is damaged. The error gives the command.
    """
    import spacy

    name = Path(model).name
    is_package = spacy.util.is_package(model)
    try:
        return spacy.load(model, exclude=list(exclude))
    except _DAMAGE as error:
        if is_package:
            problem = _damage(f"The spaCy model {model}", [], error)
            raise NapoBenchError(problem, f"python -m spacy download {name} --force-reinstall") from None
        if Path(model).exists():
            raise NapoBenchError(
                _damage("The spaCy model", [Path(model)], error),
                f"Give the folder that holds its config.cfg, or copy it again. From the network: "
                f"python -m spacy download {name}",
            ) from None
        raise NapoBenchError(f"The spaCy model {model} is not installed.", f"python -m spacy download {name}") from None


def _require_vectors(nlp: Any, model: str) -> None:
    """Refuse a spaCy pipeline without word vectors, or with fewer than its meta.json says."""
    vectors = nlp.vocab.vectors
    here = {"vectors": len(vectors), "keys": vectors.n_keys}
    stored = files.read_json(nlp.path / "meta.json").get("vectors", {})
    fewer = [f"{here[name]} {name} of {stored[name]}" for name in here if here[name] < stored.get(name, 0)]
    if fewer:
        raise NapoBenchError(
            f"The spaCy model {model} is damaged: its word vectors have {' and '.join(fewer)} (meta.json).",
            f"Fetch it again: python -m spacy download {Path(model).name} --force-reinstall",
        )
    if not here["vectors"]:
        raise NapoBenchError(
            f"The spaCy model {model} has no word vectors.",
            "Give one that has: --spacy-model en_core_web_lg (the official one) or en_core_web_md.",
        )


def _damage(what: str, places: Sequence[Path], error: BaseException) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    shown = f" ({', '.join(map(str, places))})" if places else ""
    return f"{what}{shown} is damaged or cannot be read: {reason[:200]}."


def _nltk_files(package: str) -> list[Path]:
    """The folder and the archive of a package, if they exist in NLTK's data folders."""
    import nltk

    places = [Path(folder) / NLTK_RESOURCES[package] for folder in nltk.data.path]
    return [path for place in places for path in (place, place.with_suffix(".zip")) if path.exists()]


def spacy_model_name(nlp: Any) -> str:
    """Name and version of a loaded spaCy pipeline: "en_core_web_lg 3.8.0"."""
    return f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}"


def _wordnet_lines(name: str) -> Iterator[str]:
    import nltk

    try:
        folder = nltk.data.find("corpora/wordnet/")
    except LookupError:
        folder = nltk.data.find("corpora/wordnet.zip/wordnet/")
    last = ""
    with folder.join(name).open(encoding="utf-8") as stream:
        for last in stream:
            yield last
    if not (last.startswith("z") and last.endswith("\n")):
        raise ValueError(f"{name} ends too early")  # its lines are in the order of the alphabet


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Let imports in the block fail for these packages, except packages that are loaded already.

    NLTK and spaCy import torch, SciPy and scikit-learn if they are installed, and work without them. The words and
    vectors need none of them, and their imports take 3 s and 700 MB.
    """
    absent = [name for name in names if name not in sys.modules]
    # The import system's way to say that there is no such module: None in sys.modules.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]

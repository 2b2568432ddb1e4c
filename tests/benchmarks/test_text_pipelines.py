"""The text pipelines read words as NLTK and spaCy themselves do, and say how to get what is not installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nltk
import numpy as np
import pytest
import spacy

from napo_bench.benchmarks.text import ClosedVocabularyText, NounLemmas, OfficialText, open_pipeline
from napo_bench.core.errors import NapoBenchError


@pytest.fixture(scope="module")
def official(shared):
    shared("nltk_data")
    return OfficialText(str(shared("spacy/en_core_web_md")))


@pytest.fixture(scope="module")
def captions(shared):
    lines = shared("reference/responses/minigpt4.jsonl").read_text().splitlines()[:60]
    return [json.loads(line)["caption"] for line in lines]


def test_noun_lemmas_are_those_of_nltks_wordnet_lemmatizer(shared, captions):
    exceptions = shared("nltk_data/corpora/wordnet/noun.exc").read_text().split()
    endings = [stem + ending for stem in ("bo", "gla", "wi", "kni") for ending in ("s", "ses", "ves", "xes", "zes")]
    endings += [
        "churches",
        "dishes",
        "women",
        "ponies",
        "men",
        "Dogs",
        "s",
        "us",
        "skis",
        "glasses",
        "buses",
        "---",
        "",
    ]
    words = {word for text in captions for word in nltk.word_tokenize(text)} | set(exceptions) | set(endings)
    lemma = NounLemmas()
    lemmatize = nltk.stem.WordNetLemmatizer().lemmatize
    assert {word: lemma(word) for word in words} == {word: lemmatize(word) for word in words}


def test_official_words_are_lower_cased_tokens_with_their_lemmas(official):
    assert official.words("Two Buses, don't they?") == [
        ("two", "two", 0),
        ("buses", "bus", 1),
        (",", ",", 1),
        ("do", "do", 2),
        ("n't", "n't", 2),
        ("they", "they", 3),
        ("?", "?", 3),
    ]


@pytest.mark.parametrize("pipeline", ["official", "closed vocabulary"])
def test_a_token_knows_its_word_of_the_text(request, pipeline):
    text = request.getfixturevalue("official") if pipeline == "official" else ClosedVocabularyText(["cat", "dog"])
    said = 'A "cat"\n and  a well-known CAT, concatenated. Dogs!'
    assert [(word.lemma, word.place) for word in text.words(said) if word.lemma in ("cat", "dog")] == [
        ("cat", 1),
        ("cat", 5),
        ("dog", 7),
    ]
    assert [word.place for word in text.nouns(said) if word.lemma.lower() in ("cat", "dog", "dogs")] == [1, 5, 7]


def test_official_nouns_are_those_that_nltk_tags_and_keep_their_case(official, captions):
    for text in captions[:10]:
        tagged = nltk.pos_tag(nltk.word_tokenize(text))
        assert [noun.surface for noun in official.nouns(text)] == [word for word, tag in tagged if tag.startswith("NN")]
    assert ("Cars", "Cars", 3) in official.nouns("The road has Cars.")


@pytest.mark.filterwarnings("ignore:.*W008")
def test_similar_words_are_those_above_the_threshold_in_spacy(official, shared):
    relation = json.loads(shared("reference/amber/relation.json").read_text())
    words = sorted({*relation, *(word for associates in relation.values() for word in associates)})
    words = [*words[::6], "e-book", "air-conditioning", "TV", "potted plant", "qzxv"]
    docs = {word: official._nlp(word) for word in words}
    expected = {(a, b) for a, first in docs.items() for b, second in docs.items() if first.similarity(second) > 0.8}
    found = official.similar(words, 0.8)
    assert {(a, b) for a, others in found.items() for b in others} == expected


def test_similarity_decides_as_spacy_at_any_threshold(official):
    words = ["dog", "puppy", "truck", "road", "street", "woman", "people", "sky"]
    docs = {word: official._nlp(word) for word in words}
    for a, first in docs.items():
        for b, second in docs.items():
            exact = first.similarity(second)
            for threshold in (np.nextafter(exact, -1), exact, np.nextafter(exact, 2)):
                assert (b in official.similar([a, b], threshold)[a]) == (exact > threshold or a == b)


def test_closed_vocabulary_reads_plurals_of_its_words_and_needs_no_data():
    text = ClosedVocabularyText(["bus", "berry", "knife", "woman", "glass", "skis", "bow tie"])
    words = text.words("Buses, BERRIES, knives; women glasses skis ties cats")
    assert [word.lemma for word in words] == ["bus", "berry", "knife", "woman", "glass", "skis", "tie", "cats"]
    assert [noun.surface for noun in text.nouns("A Bus and cats")] == ["bus"]
    assert text.similar(["bus", "berry"], 0.8) == {"bus": {"bus"}, "berry": {"berry"}}


def test_descriptions_tell_pipelines_and_versions_apart(official):
    assert official.description["name"] == "official"
    assert official.description["nltk"] == nltk.__version__
    assert official.description["spacy_model"] == "en_core_web_md 3.8.0"
    assert open_pipeline("closed_vocabulary", ["dog"]).description == {"name": "closed_vocabulary"}


def test_words_alone_need_no_spacy_model(shared):
    shared("nltk_data")
    assert "spacy" not in OfficialText().description


def test_missing_data_is_named_with_the_commands_that_get_it(tmp_path):
    program = "from napo_bench.benchmarks.text import OfficialText; OfficialText('en_core_web_lg')"
    environment = os.environ | {"NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet" in done.stderr
    assert "python -m spacy download en_core_web_lg" in done.stderr


@pytest.fixture
def nltk_data(shared, tmp_path, monkeypatch):
    """A copy of what the pipeline reads of NLTK's data, the only one that NLTK finds."""
    folder = tmp_path / "nltk_data"
    for name in ("tokenizers/punkt_tab/english", "taggers/averaged_perceptron_tagger_eng"):
        shutil.copytree(shared(f"nltk_data/{name}"), folder / name)
    (folder / "corpora/wordnet").mkdir(parents=True)
    for name in ("index.noun", "noun.exc"):
        shutil.copy(shared(f"nltk_data/corpora/wordnet/{name}"), folder / "corpora/wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    return folder


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def zip_wordnet(folder: Path) -> Path:
    path = shutil.make_archive(str(folder / "corpora/wordnet"), "zip", folder / "corpora", "wordnet")
    shutil.rmtree(folder / "corpora/wordnet")
    return Path(path)


def test_a_zipped_wordnet_is_read(nltk_data):
    zip_wordnet(nltk_data)
    assert OfficialText().words("Buses")[0].lemma == "bus"


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


TAGGER = "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng"


@pytest.mark.parametrize(
    ("package", "place", "damage"),
    [
        ("wordnet", "corpora/wordnet.zip", lambda folder: cut(zip_wordnet(folder), 1000)),
        ("wordnet", "corpora/wordnet.zip", lambda folder: cut(zip_wordnet(folder), 0)),
        ("wordnet", "corpora/wordnet", lambda folder: cut(folder / "corpora/wordnet/index.noun", 100_000)),
        ("wordnet", "corpora/wordnet", lambda folder: cut(folder / "corpora/wordnet/index.noun", 0)),
        ("wordnet", "corpora/wordnet", lambda folder: (folder / "corpora/wordnet/noun.exc").unlink()),
        ("wordnet", "corpora/wordnet", lambda folder: a_directory(folder / "corpora/wordnet/noun.exc")),
        ("averaged_perceptron_tagger_eng", "taggers", lambda folder: cut(folder / f"{TAGGER}.weights.json", 5000)),
        ("averaged_perceptron_tagger_eng", "taggers", lambda folder: cut(folder / f"{TAGGER}.classes.json", 0)),
        ("averaged_perceptron_tagger_eng", "taggers", lambda folder: (folder / f"{TAGGER}.tagdict.json").unlink()),
        ("punkt_tab", "tokenizers", lambda folder: cut(folder / "tokenizers/punkt_tab/english/abbrev_types.txt", 0)),
    ],
)
def test_damaged_nltk_data_is_one_message_that_names_it(nltk_data, package, place, damage):
    damage(nltk_data)
    with pytest.raises(NapoBenchError) as caught:
        OfficialText("a_model_that_is_not_installed")
    damaged, not_installed = caught.value.message.splitlines()
    assert f"NLTK's {package} ({nltk_data / place}" in damaged and "is damaged or cannot be read" in damaged
    assert "a_model_that_is_not_installed is not installed" in not_installed
    assert f"python -m nltk.downloader --force {package}" in caught.value.hint


@pytest.fixture
def spacy_model(shared, tmp_path):
    """A copy of the spaCy model whose files may be replaced, not written into."""
    source = shared("spacy/en_core_web_md")
    for name in ("config.cfg", "meta.json", "tokenizer"):
        (tmp_path / "model").mkdir(exist_ok=True)
        shutil.copy(source / name, tmp_path / "model")
    (tmp_path / "model/vocab").mkdir()
    for path in (source / "vocab").iterdir():
        (tmp_path / "model/vocab" / path.name).symlink_to(path)
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("file", "size", "message"),
    [
        ("vocab/vectors", None, r"is damaged: its word vectors have 0 vectors of 20000"),
        ("vocab/key2row", None, r"is damaged: its word vectors have 0 keys of 684830"),
        ("vocab/vectors", 1_000_000, "is damaged or cannot be read"),
        ("vocab/strings.json", 0, "is damaged or cannot be read"),
        ("config.cfg", 300, "is damaged or cannot be read"),
    ],
)
def test_a_damaged_spacy_model_is_one_message_that_names_it(shared, spacy_model, file, size, message):
    shared("nltk_data")
    content = (spacy_model / file).read_bytes()
    (spacy_model / file).unlink()
    if size is not None:
        (spacy_model / file).write_bytes(content[:size])
    with pytest.raises(NapoBenchError, match=message) as caught:
        OfficialText(str(spacy_model))
    assert str(spacy_model) in caught.value.message
    assert "python -m spacy download" in caught.value.hint


def test_a_folder_that_is_no_spacy_model_is_named(shared, tmp_path):
    shared("nltk_data")
    with pytest.raises(NapoBenchError, match=r"config\.cfg"):
        OfficialText(str(tmp_path))


def test_a_spacy_model_without_vectors_is_refused(shared, tmp_path):
    shared("nltk_data")
    spacy.blank("en").to_disk(tmp_path / "bare")
    with pytest.raises(NapoBenchError, match="bare has no word vectors"):
        OfficialText(str(tmp_path / "bare"))


def test_an_unknown_pipeline_is_refused_with_the_choices():
    with pytest.raises(NapoBenchError, match="official, closed_vocabulary"):
        open_pipeline("offical", [])


def test_the_official_pipeline_loads_neither_torch_nor_scipy(shared):
    model = shared("spacy/en_core_web_md")
    program = (
        "import sys; from napo_bench.benchmarks.text import OfficialText; "
        f"OfficialText({str(model)!r}); print({{'torch', 'scipy', 'sklearn'}} & set(sys.modules)); import scipy.stats"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

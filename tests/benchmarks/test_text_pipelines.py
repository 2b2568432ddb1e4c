"""The text pipelines read words as NLTK and spaCy themselves do, and say how to get what is not installed."""

import json
import os
import subprocess
import sys

import nltk
import numpy as np
import pytest
import spacy

from benchmarks.text import ClosedVocabularyText, NounLemmas, OfficialText, open_pipeline
from napo_bench.errors import NapoBenchError


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
        ("two", "two"),
        ("buses", "bus"),
        (",", ","),
        ("do", "do"),
        ("n't", "n't"),
        ("they", "they"),
        ("?", "?"),
    ]


def test_official_nouns_are_those_that_nltk_tags_and_keep_their_case(official, captions):
    for text in captions[:10]:
        tagged = nltk.pos_tag(nltk.word_tokenize(text))
        assert [noun.surface for noun in official.nouns(text)] == [word for word, tag in tagged if tag.startswith("NN")]
    assert ("Cars", "Cars") in official.nouns("The road has Cars.")


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
    program = "from benchmarks.text import OfficialText; OfficialText('en_core_web_lg')"
    environment = os.environ | {"NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet" in done.stderr
    assert "python -m spacy download en_core_web_lg" in done.stderr


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
        "import sys; from benchmarks.text import OfficialText; "
        f"OfficialText({str(model)!r}); print({{'torch', 'scipy', 'sklearn'}} & set(sys.modules)); import scipy.stats"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

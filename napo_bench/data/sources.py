"""Where the official data of each benchmark is published, pinned.

A revision is a commit. A digest is that of the bytes that the authors publish under that revision; where none is known
the first fetch records it in the data dir (`fetch.LOCK_NAME`) and every later fetch is held to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_AMBER = "https://raw.githubusercontent.com/junyangwang0410/AMBER/5e1fd52f8ea69150c70f0ba15de70af3a907a1fd/data"
_RLHF_V = "https://raw.githubusercontent.com/RLHF-V/RLHF-V/3d35a91568b237fcc9d884463d9279fd7ae10350/eval"
_RLAIF_V = "https://raw.githubusercontent.com/RLHF-V/RLAIF-V/83d917b2e8118ca8e7877a796d72af9bb3e6b356/eval"


@dataclass(frozen=True)
class WebFile:
    """One file behind a URL.

    Attributes:
        target: Path in the data dir.
        url: Of the file.
        sha256: Of the file in the data dir; empty where unknown.
        constant: For a text that its authors publish as a string in a Python file: the name of that string.
    """

    target: str
    url: str
    sha256: str = ""
    constant: str = ""

    def is_there(self, root: Path) -> bool:
        """Whether the data dir `root` has it."""
        return (root / self.target).is_file()

    def by_hand(self, root: Path) -> str:
        """How a person gets it without `napo-bench data fetch`."""
        what = f"the string {self.constant!r} of " if self.constant else ""
        return f"get {what}{self.url}\nsave it as {root / self.target}"


@dataclass(frozen=True)
class WebArchive:
    """Files of a zip archive behind a URL, put into one folder whatever folders the archive has.

    Attributes:
        target: Folder in the data dir.
        url: Of the archive.
        name: What a mirror calls the archive.
        members: Regular expression of the names of the wanted files.
        count: How many there are.
        md5: Of the archive; empty where its authors publish none.
        page: Where a person finds it.
    """

    target: str
    url: str
    name: str
    members: str
    count: int
    page: str
    md5: str = ""

    def files(self, root: Path) -> Iterator[Path]:
        """The wanted files that the data dir `root` has."""
        folder = root / self.target
        if folder.is_dir():
            yield from (path for path in folder.iterdir() if re.fullmatch(self.members, path.name))

    def is_there(self, root: Path) -> bool:
        """Whether the data dir `root` has every file of it."""
        return sum(1 for _ in self.files(root)) >= self.count

    def by_hand(self, root: Path) -> str:
        """How a person gets it without `napo-bench data fetch`."""
        return f"get the archive {self.page}\nput its {self.count:,} files {self.members} into {root / self.target}"


@dataclass(frozen=True)
class HubFolder:
    """A folder of a data set on the Hugging Face hub.

    Attributes:
        target: Folder in the data dir.
        repo: Name of the data set.
        revision: Commit, or a branch where no commit is known.
        path: The folder in the data set.
        contents: Globs below `target`, each with the number of files that it matches at least.
        instead: Glob below `target` of another published form that serves as well.
    """

    target: str
    repo: str
    revision: str
    path: str
    contents: tuple[tuple[str, int], ...]
    instead: str = ""

    def is_there(self, root: Path) -> bool:
        """Whether the data dir `root` has its contents."""
        folder = root / self.target
        if self.instead and any(folder.glob(self.instead)):
            return True
        return all(sum(1 for _ in folder.glob(pattern)) >= count for pattern, count in self.contents)

    def by_hand(self, root: Path) -> str:
        """How a person gets it without `napo-bench data fetch`."""
        page = f"https://huggingface.co/datasets/{self.repo}/tree/{self.revision}"
        return f"get the folder {self.path!r} of {page}\nput what it holds into {root / self.target}"


Source = WebFile | WebArchive | HubFolder

SOURCES: dict[str, tuple[Source, ...]] = {
    "vlind": (
        HubFolder(
            "vlind",
            "klee972/VLind-Bench",
            "main",
            "VLind-Bench Dataset",
            (("data.json", 1), ("images/factual/*/*/*.jpg", 1), ("images/counterfactual/*/*/*.jpg", 1)),
            instead="*.parquet",
        ),
    ),
    "object_halbench": (
        WebFile(
            "object_halbench/questions.jsonl",
            f"{_RLAIF_V}/data/obj_halbench_300_with_image.jsonl",
            "e89c705f3cdebc35b7863878e059c88a97506767b87ad17014d58428ce6547a7",
        ),
        WebFile(
            "object_halbench/synonyms_refine.txt",
            f"{_RLHF_V}/data/synonyms_refine.txt",
            "681041d2958d7871ed6fa69c3108f34aa6a0a354eb53ed4c5a425e65f86bc72a",
        ),
        WebFile(
            "object_halbench/extractor_template.txt",
            f"{_RLHF_V}/eval_gpt_obj_halbench.py",
            "9d732f9b73a3cc965bee6eb163b8e5248e58bd9d382eb583e9ece59933e2b580",
            constant="prompt_template",
        ),
        WebArchive(
            "object_halbench/annotations",
            "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
            "annotations_trainval2014.zip",
            r"(instances|captions)_(train|val)2014\.json",
            4,
            "https://cocodataset.org/#download (2014 Train/Val annotations)",
            md5="0a379cfc70b0e71301e0f377548639bd",
        ),
    ),
    "amber": (
        WebFile(
            "amber/annotations.json",
            f"{_AMBER}/annotations.json",
            "db22a436c4836fbb295e60b4e80d519573077579fb7032f01b193c1bd022b797",
        ),
        WebFile(
            "amber/relation.json",
            f"{_AMBER}/relation.json",
            "c4c1491e9bbc3209abc1888c12a1bf8413bdbab8a0d8be04b990a2e7680cf23e",
        ),
        WebFile(
            "amber/safe_words.txt",
            f"{_AMBER}/safe_words.txt",
            "f92cf1123f4578a2630832fac3e6ac4de36212ea55859d3bed4fd233723f4043",
        ),
        WebFile(
            "amber/query_generative.json",
            f"{_AMBER}/query/query_generative.json",
            "b7e4c36596126ee36d2c3922638b7fa98743c26efda78fea2315f4425258d087",
        ),
        WebFile(
            "amber/query_discriminative.json",
            f"{_AMBER}/query/query_discriminative.json",
            "1502887ac020f4bb7ea564af4e37bddcb030d61b78490d00f9da492a2307abb8",
        ),
        WebArchive(
            "amber/images",
            "https://drive.usercontent.google.com/download?id=1MaCHgtupcZUjf007anNl4_MV0o4DjXvl&export=download&confirm=t",
            "images.zip",
            r"AMBER_\d+\.jpg",
            1004,
            "https://drive.google.com/file/d/1MaCHgtupcZUjf007anNl4_MV0o4DjXvl",
        ),
    ),
    "mmhal": (
        WebFile(
            "mmhal/template.json",
            f"{_RLHF_V}/data/mmhal-bench_answer_template.json",
            "28ed24e19ffef292597c35f1dad37760b2e0a088b3b40ca3b50f105fc1b951bb",
        ),
        WebFile(
            "mmhal/judge_template.txt",
            f"{_RLHF_V}/eval_gpt_mmhal.py",
            "2c73d8c50f1740d000fae62cfeed103c2f7a5bcfa904b27e6e09900e7ce600cc",
            constant="template",
        ),
        HubFolder(
            "mmhal/images",
            "Shengcao1006/MMHal-Bench",
            "f5f49a938f45ed99e235b8519ba28f76832a2add",
            "images",
            (("*.jpg", 96),),
        ),
    ),
}

SPACY_MODEL = "en_core_web_lg"
"""AMBER's word similarity, and the tagging of Object HalBench's extracted objects."""

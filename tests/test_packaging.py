"""What an installed napo-bench must be: whole, alone under its import names, quick to start, layered as designed."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tiny_llava import make_checkpoint, make_data

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("napo_bench", "trainers", "benchmarks")
CONSOLE_SCRIPT = Path(sys.executable).with_name("napo-bench")
HEAVY = {
    "torch", "torchvision", "transformers", "lmms_eval", "accelerate", "peft", "pandas", "spacy", "nltk",
    "matplotlib", "openai", "datasets", "httpx", "huggingface_hub", "pyarrow", "pycocotools", "PIL", "numpy",
}  # fmt: skip
UNUSED_BY_HELP = {"sqlite3", "socket", "tempfile", "rich.progress", "rich.status"}
PROMISED = (
    "trainers.losses.dpo_loss", "trainers.losses.napo_loss", "trainers.losses.mdpo_loss",
    "trainers.noise.noise_robustness", "trainers.noise.dynamic_weights", "trainers.forward.response_logps",
    "benchmarks.vlind.score.parse_answer", "benchmarks.mmhal.score.parse_rating",
)  # fmt: skip
"""Functions below `napo_bench` that other programs call."""


ARROWS: dict[str, set[str]] = {
    room: set() if rooms == "nothing of the project" else set(rooms.split(", "))
    for room, rooms in re.findall(r"^(\w+) +imports (.+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
}
"""Room -> the rooms that it may import from, as CONTRIBUTING.md lists them."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the project, by path relative to the root."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def imports(module: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports, anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Calls with the text of what is called."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_other_distribution_provides_our_import_names() -> None:
    for distribution in importlib.metadata.distributions():
        if distribution.name.lower().replace("_", "-") == "napo-bench":
            continue
        top = {Path(file.parts[0]).stem for file in distribution.files or []}
        assert "napo_bench" not in top, distribution.name


def wheel_of(root: Path, out: Path) -> Path:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling, of the extra `test`")
    (wheel,) = builder.WheelBuilder(str(root)).build(directory=str(out), versions=["standard"])
    return Path(wheel)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree."""
    return wheel_of(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_the_packages_and_the_results(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        declared = archive.read(entry_points).decode()
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, "results"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    places = {
        "results": "napo_bench/_results",
        "benchmarks": "napo_bench/benchmarks",
        "trainers": "napo_bench/trainers",
    }
    expected = set()
    for name in tracked:
        top, _, rest = name.partition("/")
        if (ROOT / name).is_file():
            expected.add(f"{places.get(top, top)}/{rest}")
    assert expected - names == set()
    suffixes = {Path(name).suffix for name in expected}
    assert ".yaml" in suffixes
    assert "napo_bench/py.typed" in names  # a type checker reads the types of a package that has this file
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"napo_bench"}
    assert "napo-bench = napo_bench.__main__:main" in declared
    assert "[lmms_eval.models]" in declared


def test_the_wheel_of_the_source_distribution_is_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """The links to `benchmarks` and `trainers` survive the way over a source distribution."""
    builder = pytest.importorskip("hatchling.builders.sdist", reason="hatchling, of the extra `test`")
    (archive,) = builder.SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    again = wheel_of(unpacked, tmp_path / "again")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert contents(other) == contents(one)


def contents(archive: zipfile.ZipFile) -> dict[str, int]:
    """Name -> checksum of each file, the list of files itself left out."""
    return {file.filename: file.CRC for file in archive.infolist() if not file.filename.endswith("/RECORD")}


def test_the_installed_wheel_is_one_package_whose_promised_names_resolve(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import importlib, json, sys, napo_bench\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    module, _, function = f'napo_bench.{name}'.rpartition('.')\n"
        "    assert callable(getattr(importlib.import_module(module), function)), name\n"
        "print(napo_bench.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(PROMISED)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "site")


def test_links_name_the_folders_beside_the_package() -> None:
    """A checkout without links, as Windows makes one, has two text files in their place."""
    for name in ("benchmarks", "trainers"):
        assert (ROOT / "napo_bench" / name).readlink() == Path("..") / name
        assert (ROOT / "napo_bench" / name).samefile(ROOT / name)


def cpu_seconds(*command: str | Path) -> float:
    """The least CPU time of three runs of a command."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(seconds)


def test_help_takes_less_than_a_third_of_a_second_of_cpu() -> None:
    """About 0.15 s on an idle machine, of which Typer itself takes 0.1 s."""
    assert cpu_seconds(CONSOLE_SCRIPT, "--help") < 0.33


def test_the_import_takes_less_than_a_tenth_of_a_second_of_cpu() -> None:
    assert cpu_seconds(sys.executable, "-c", "import napo_bench") < 0.1


def test_the_command_line_imports_nothing_heavy() -> None:
    program = "import json, sys, napo_bench.cli; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    imported = set(json.loads(done.stdout))
    assert HEAVY & {name.split(".")[0] for name in imported} == set()
    assert UNUSED_BY_HELP & imported == set()


def test_folders_named_like_our_packages_shadow_nothing(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    done = subprocess.run(
        [CONSOLE_SCRIPT, "data", "show", "--data-dir", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_script_beside_foreign_packages_of_the_same_names_evaluates_a_checkpoint(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "tiny-llava")
    make_data(tmp_path / "data")
    for package in ("benchmarks", "trainers"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("FOREIGN = True\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"vlind": 1}


SCRIPT = """
import json
from pathlib import Path

import benchmarks
import napo_bench
import trainers
from napo_bench.runs.evaluate import EvalOptions, evaluate
from napo_bench.runs.score import ScoreOptions

assert benchmarks.FOREIGN and trainers.FOREIGN
words = ScoreOptions(pipeline="closed_vocabulary")
options = EvalOptions(suite=["vlind"], data_dir=Path("data"), limit=2, device="cpu", scoring=words)
run = evaluate("tiny-llava", Path("run"), options)
print(json.dumps({name: 1 for name in run.benchmarks}))
"""


def room(path: str) -> str:
    """The room of a module by its path: the folder below napo_bench, or a folder of its own at the top."""
    parts = Path(path).parts
    if path == "napo_bench/__main__.py":
        return "cli"
    return parts[1] if parts[0] == "napo_bench" else parts[0]


def arrows() -> dict[str, dict[str, set[str]]]:
    """Room -> room from which it imports -> the modules that do so."""
    found: dict[str, dict[str, set[str]]] = {room: {} for room in ARROWS}
    for path, module in modules().items():
        here = room(path)
        for name in imports(module):
            package, _, rest = name.partition(".")
            there = rest.partition(".")[0]
            if package == "napo_bench" and there in ARROWS and there != here:
                found[here].setdefault(there, set()).add(path)
    return found


def test_arrows_between_rooms_are_those_that_are_listed() -> None:
    for here, found in arrows().items():
        assert {there: paths for there, paths in found.items() if there not in ARROWS[here]} == {}, here
        assert ARROWS[here] - set(found) == set(), f"{here} needs no such arrow"


def test_arrows_lead_to_no_circle_of_rooms() -> None:
    TopologicalSorter(ARROWS).prepare()  # raises CycleError, which names the rooms


def imported_when_loaded(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Dotted names that a module imports while it is imported itself."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []))
        elif isinstance(node, ast.If):
            if ast.unparse(node.test) != "TYPE_CHECKING":
                yield from imported_when_loaded(node.body)
            yield from imported_when_loaded(node.orelse)
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            yield from imported_when_loaded(node.body)


def import_name(path: str) -> str:
    """The import name of a module by its path relative to the root."""
    name = ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")
    return name if name.split(".")[0] == "napo_bench" else f"napo_bench.{name}"


def test_no_module_imports_itself_through_others() -> None:
    named = {import_name(path): module for path, module in modules().items()}

    def module_of(name: str) -> str:
        return name if name in named or not name else module_of(name.rpartition(".")[0])

    order = TopologicalSorter(
        {
            name: {found for read in imported_when_loaded(module.body) if (found := module_of(read))} - {name}
            for name, module in named.items()
        }
    )
    order.prepare()  # raises CycleError, which names the modules


def test_a_private_name_is_used_in_its_own_module_alone() -> None:
    for path, module in modules().items():
        names = [name for name in imports(module) if name.split(".")[0] == "napo_bench"]
        ours = {name.rpartition(".")[2] for name in names}
        read = [
            ast.unparse(node)
            for node in ast.walk(module)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours
        ]
        private = [name for name in [*names, *read] if re.match(r"_[a-z]", name.rpartition(".")[2])]
        assert private == [], path


def test_one_module_names_the_cache_folder() -> None:
    for path, module in modules().items():
        if path != "napo_bench/core/paths.py":
            assert "platformdirs" not in {name.split(".")[0] for name in imports(module)}, path


ASKS_FOR_A_RANK = {
    "PartialState", "process_index", "local_process_index", "num_processes", "is_main_process",
    "is_local_main_process", "is_world_process_zero", "get_rank", "get_world_size",
}  # fmt: skip
"""Names in accelerate, transformers and torch."""


def test_one_module_asks_for_a_rank() -> None:
    for path, module in modules().items():
        if path == "napo_bench/core/processes.py":
            continue
        for node in ast.walk(module):
            name = node.value if isinstance(node, ast.Constant) else getattr(node, "attr", getattr(node, "id", None))
            assert name not in {"RANK", "LOCAL_RANK", "WORLD_SIZE", *ASKS_FOR_A_RANK}, f"{path}:{node.lineno}"


def test_every_room_has_its_arrows() -> None:
    assert {room(path) for path in modules()} - {"__init__.py"} == set(ARROWS)


def test_every_import_of_ours_begins_with_the_one_import_name() -> None:
    for path, module in modules().items():
        wrong = [name for name in imports(module) if name.split(".")[0] in ("benchmarks", "trainers")]
        assert wrong == [], path


def test_scores_and_losses_import_nothing_of_the_project() -> None:
    parsed = modules()
    pure = [path for path in parsed if path.startswith("benchmarks/") and path.endswith("/score.py")]
    pure += ["trainers/losses.py", "trainers/noise.py"]
    assert len(pure) == 6
    for path in pure:
        wrong = [name for name in imports(parsed[path]) if name.split(".")[0] in PACKAGES]
        assert wrong == [], path


def test_no_code_comes_out_of_data() -> None:
    for path, module in modules().items():
        assert {name.split(".")[0] for name in imports(module)}.isdisjoint(
            {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
        ), path
        for name, call in calls(module):
            assert name not in {"eval", "exec", "yaml.load", "yaml.unsafe_load"}, f"{path}:{call.lineno} calls {name}"
            loads_weights = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert name != "torch.load" or loads_weights.get("weights_only") == "True", f"{path}:{call.lineno}"


def test_remote_code_is_never_trusted_unasked() -> None:
    for path, module in modules().items():
        for _, call in calls(module):
            asked = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "trust_remote_code"]
            assert "True" not in asked, f"{path}:{call.lineno}"
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args]
                defaults = dict(zip(reversed(arguments), reversed(node.args.defaults), strict=False))
                defaults |= dict(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
                for argument, default in defaults.items():
                    if argument.arg == "trust_remote_code" and default is not None:
                        assert ast.unparse(default) == "False", f"{path}:{node.lineno}"


APART = "vllm"
"""The extra that wants other versions of torch and transformers than constraints.txt: the tests do not need it."""


def declared(without: str = "") -> list[Requirement]:
    """Every dependency of pyproject.toml, those of the extras but one included, without napo-bench itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [texts for name, texts in project["optional-dependencies"].items() if name != without]
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != "napo-bench"]


def constrained() -> dict[str, Version]:
    """The version of each package in constraints.txt; a line that is not one exact public version is an error."""
    versions = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, version = re.fullmatch(r"([a-z0-9-]+)==([a-z0-9.]+)", line).groups()
            assert name not in versions
            versions[name] = Version(version)
    return versions


def test_constraints_name_one_allowed_version_of_every_dependency() -> None:
    versions = constrained()
    for requirement in declared(without=APART):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_constraints_cover_what_the_dependencies_need_in_turn() -> None:
    versions = constrained()
    for name, version in versions.items():
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if Version(installed.version).public != str(version):
            continue
        for requirement in map(Requirement, installed.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                chosen = versions[canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(chosen), f"{name} {version} needs {requirement}, not {chosen}"


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in declared():
        assert any(bound.operator == ">=" for bound in requirement.specifier), requirement


@pytest.mark.parametrize(
    ("name", "next_version"),
    [("filelock", "4.3"), ("lmms-eval", "0.8"), ("transformers", "6"), ("datasets", "6"), ("spacy", "4")],
)
def test_packages_whose_insides_are_used_have_an_upper_bound(name: str, next_version: str) -> None:
    bounds = [requirement.specifier for requirement in declared() if requirement.name == name]
    assert bounds and not any(bound.contains(next_version) for bound in bounds)


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "action.yml", ".ci/run"])
def test_every_install_of_the_dependencies_names_the_constraints(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if re.search(r"/pip\"? install\b", line) and "--no-deps" not in line]
    assert installs
    for line in installs:
        assert re.search(r'(-c|--constraint) "?(\$GITHUB_ACTION_PATH/)?constraints\.txt"? ', line), line


def test_deprecated_names_of_transformers_are_not_read() -> None:
    """The `newest` run of scripts/try_versions.py lets `is_gradient_checkpointing` pass for PEFT's sake."""
    for path, module in modules().items():
        read = {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)}
        assert read.isdisjoint({"is_gradient_checkpointing", "gradient_checkpointing_enable"}), path


def test_the_tests_that_the_versions_are_tried_with_exist() -> None:
    named = re.findall(r'"(tests/[^"]+)"', (ROOT / "scripts/try_versions.py").read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []

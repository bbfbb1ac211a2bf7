"""pyproject.toml is the one list of dependencies; environment.yml, README and the code keep in step with it."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import yaml

from selfie_lite.evaluation.probes import fraction_table, read_results

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
NAMES = {group: {re.match(r"[\w-]+", line).group().lower() for line in lines} for group, lines in GROUPS.items()}
PACKAGES = set().union(*NAMES.values())
CHOSEN = {"torch", "torchvision", "jupyterlab", "matplotlib", "ipywidgets", "nbval", "papermill"}
README = (ROOT / "README.md").read_text(encoding="utf-8")
IMPORT_NAMES = {"IPython": "ipython", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
IMPORT_NAMES["axe_playwright_python"] = "axe-playwright-python"


def imported(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


OURS = {"selfie_lite", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
OURS |= {"sleepy", "train_selfie"}  # modules that tests write
ASKED_FOR = {"distributed", "lightly", "ray"}  # engines and baselines, imported where the user names them


def packages_of(sources):
    names = {name for source in sources for name in imported(source)} - set(sys.stdlib_module_names) - OURS
    return {IMPORT_NAMES.get(name, name) for name in names}


def test_everything_imported_is_a_dependency():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    assert packages_of(sources) - PACKAGES == set()
    cells = [cell for path in (ROOT / "nbs").glob("*.ipynb") for cell in nbformat.read(path, as_version=4).cells]
    used = packages_of(cell.source for cell in cells if cell.cell_type == "code")
    assert used - NAMES[""] - NAMES["notebooks"] == set()


def test_the_library_needs_no_extra_but_where_it_is_about_notebooks():
    files = {path: path.read_text(encoding="utf-8") for path in (ROOT / "selfie_lite").rglob("*.py")}
    assert "ImportError" in files.pop(ROOT / "selfie_lite/benchmarks/inspector.py"), "it drives a browser, if it can"
    assert packages_of(files.values()) - NAMES[""] - NAMES["notebooks"] == ASKED_FOR
    asking = [text for text in files.values() if packages_of([text]) & ASKED_FOR]
    assert all(re.search("ImportError|ModuleNotFoundError", text) for text in asking), (
        "one that is not there is asked for in words"
    )
    always = NAMES[""] | ASKED_FOR
    with_extras = {path.relative_to(ROOT / "selfie_lite") for path in files if packages_of([files[path]]) - always}
    allowed = {Path("workbook"), Path("inspector"), Path("cli/inspect.py")}
    assert [path for path in with_extras if not allowed & {path, *path.parents}] == []


def test_the_lock_file_holds_every_package_within_its_bounds():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    numbers = lambda version: [int(number) for number in re.findall(r"\d+", version)]  # noqa: E731
    locked = {re.sub(r"[-_.]+", "-", name).lower(): numbers(version) for name, version in locked.items()}
    for name, floor in (re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in sum(GROUPS.values(), [])):
        assert locked[name.replace("_", "-")] >= numbers(floor)


def test_environment_yml_leaves_everything_to_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, pip_part = environment["dependencies"]
    assert python == "python" + PROJECT["requires-python"] and pip == "pip"
    assert pip_part == {"pip": ["-e .[notebooks,test]"]}
    assert environment["name"] == PROJECT["name"]


def test_readme_says_what_holds():
    assert CHOSEN <= PACKAGES
    for group, before in {"": "Packages", "notebooks": "`[notebooks]`", "test": "`[test]`"}.items():
        listed = re.search(rf"{re.escape(before)}: ([^.]+)\.", README).group(1)
        assert {name.strip(" `\n") for name in listed.replace(" and", ",").split(",")} == NAMES[group]
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in README
    for command in (
        "make walkthrough",
        "make test",
        "make lab",
        "make test-floor",
        "make LOCKED=1",
        "conda env create -f environment.yml",
    ):
        assert command in README
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make ([a-z-]+)", README)) <= set(targets)


def test_ci_runs_the_readme_test_command():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "make test" in lines and any("install" in line and "chromium" in line for line in lines)


def test_readme_map_has_every_notebook_with_its_recorded_time():
    recorded = json.loads((ROOT / "nbs" / "results" / "walkthrough.json").read_text(encoding="utf-8"))
    seconds = {row["notebook"]: row["seconds"] for row in recorded["notebooks"]}
    assert re.fullmatch(r"[0-9a-f]{12}", recorded["environment"]["commit"]), "measured on committed code"
    notebooks = {path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")}
    rows = dict(re.findall(r"\| \[(\d\d_\w+)\]\(nbs/\1\.ipynb\) \|[^|]+\| (\d+) s \|", README))
    assert set(rows) == set(seconds) == notebooks
    assert {name: int(text) for name, text in rows.items()} == {name: round(seconds[name]) for name in rows}


def test_readme_quotes_the_inspectors_latency():
    measured = json.loads((ROOT / "nbs/results/inspector.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{12}", measured["environment"]["commit"]), "measured on committed code"
    rows = {row["change"]: row for row in measured["changes"]}
    kernel = rows.pop("next puzzle, in the kernel")["milliseconds"]["median"]
    rows.pop("next puzzle, computed before")
    medians = [row["milliseconds"]["median"] for row in rows.values()]
    cpu = [row["cpu_milliseconds"] for row in rows.values()]
    readme = " ".join(README.split())
    words = r"takes (\d+) to (\d+) ms, of which the page computes (\d+) to (\d+) .*? the kernel needs (\d+) ms"
    quoted = [int(text) for text in re.search(words, readme).groups()]
    assert [round(value) for value in (min(medians), max(medians), min(cpu), max(cpu), kernel)] == quoted
    assert max(medians) < 50 and f"medians of {measured['rounds']} by key" in readme


def test_readme_quotes_the_measured_ratios():
    measured = json.loads((ROOT / "nbs/results/pretrain_speed_cpu.json").read_text())
    ladder = {row["rung"]: row["times_plain"]["median"] for row in measured["ladder"]}
    expected = [
        f"{ladder['default']:.2f}",
        f"{ladder['+ torch.compile']:.2f}",
        f"{measured['ceiling']['step_over_ceiling']['median']:.2f}",
        f"{measured['locations']['rows']['at once']['times_one at a time']['median']:.2f}",
        f"{measured['processes'][1]['times_one_process']['median']:.2f}",
        f"{measured['input']['rows']['1 workers']['times_step']['median']:.1f}",
    ]
    table = README.split("### How fast")[1].split("\n\n")[2]
    assert re.findall(r"\| ([\d.]+) \|", table) == expected
    assert f"medians of {measured['rounds']} interleaved rounds" in README


def test_readme_quotes_the_fine_tuning_results_and_the_probes():
    table = fraction_table(read_results(ROOT / "nbs/results/finetune_sample.jsonl"), unequal_pretraining=True)
    cells = {(row["images"], row["arm"]): f"{row['mean']:.3f} ± {row['std']:.3f}" for row in table}
    assert all(len(row["runs"]) == 3 for row in table) and len(cells) == 12
    for images in {images for images, _ in cells}:
        quoted = " | ".join(cells[images, arm] for arm in ("scratch", "additive", "mask_token"))
        assert re.search(rf"\| {images:,} \(\d+%\) \| {re.escape(quoted)} \|", README)
    for row in json.loads((ROOT / "nbs/results/probes_cifar10.json").read_text())["rows"]:
        assert f"| {row['features']} | {row['knn']:.3f} | {row['linear']:.3f} |" in README


def test_results_come_from_committed_code():
    for name in ("finetune_sample.jsonl", "finetune_longer.jsonl", "finetune_search.jsonl"):
        for result in read_results(ROOT / "nbs/results" / name):
            assert re.fullmatch(r"[0-9a-f]{12}", result["environment"]["commit"])

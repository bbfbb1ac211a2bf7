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
PACKAGES = {re.match(r"[\w-]+", line).group().lower() for line in PROJECT["dependencies"]}
CHOSEN = {"torch", "torchvision", "jupyterlab", "matplotlib", "ipywidgets", "nbval", "papermill"}
README = (ROOT / "README.md").read_text(encoding="utf-8")
IMPORT_NAMES = {"IPython": "ipython", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}


def imported(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_everything_imported_is_a_dependency():
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("selfie_lite", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for path in (ROOT / "nbs").glob("*.ipynb"):
        sources += [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    names = (
        {name for source in sources for name in imported(source)}
        - set(sys.stdlib_module_names)
        - {"selfie_lite", "tiny"}
    )
    assert {IMPORT_NAMES.get(name, name) for name in names} - PACKAGES == set()


def test_environment_yml_leaves_everything_to_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, pip_part = environment["dependencies"]
    assert python == "python" + PROJECT["requires-python"] and pip == "pip"
    assert pip_part == {"pip": ["-e ."]}
    assert environment["name"] == PROJECT["name"]


def test_readme_says_what_holds():
    assert CHOSEN <= PACKAGES
    listed = re.search(r"Packages: ([^.]+)\.", README).group(1)
    assert {name.strip(" `\n") for name in listed.replace(" and ", ",").split(",")} == PACKAGES
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in README
    for command in ("make walkthrough", "make test", "make lab", "conda env create -f environment.yml"):
        assert command in README
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", README)) <= set(targets)


def test_ci_runs_the_readme_test_command():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "make test" in lines and any("install" in line and "chromium" in line for line in lines)


def test_readme_map_has_every_notebook_with_its_recorded_time():
    recorded = json.loads((ROOT / "nbs" / "results" / "walkthrough.json").read_text(encoding="utf-8"))
    seconds = {row["notebook"]: row["seconds"] for row in recorded["notebooks"]}
    assert re.fullmatch(r"[0-9a-f]{12}", recorded["environment"]["commit"]), "measured on committed code"
    notebooks = {path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")}
    rows = dict(re.findall(r"\| \[(\d\d_\w+)\]\(nbs/\1\.ipynb\) \|[^|]+\| (\d+) s \|", README))
    assert set(rows) == notebooks == set(seconds)
    assert {name: int(text) for name, text in rows.items()} == {name: round(seconds[name]) for name in rows}


def test_readme_quotes_the_inspectors_latency():
    measured = json.loads((ROOT / "nbs/results/inspector.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{12}", measured["environment"]["commit"]), "measured on committed code"
    quoted = re.search(r"takes (\d+) to (\d+) ms with one bundled model, (\d+) to (\d+) ms with two", README).groups()
    for two, expected in ((False, quoted[:2]), (True, quoted[2:])):
        rows = [row for row in measured["changes"] if row["change"].endswith("two models") == two]
        medians = [round(row["milliseconds"]["median"]) for row in rows]
        assert [min(medians), max(medians)] == [int(text) for text in expected]
        assert max(medians) < 150, "a change shows at once"
    assert f"medians of {measured['rounds']} by control and view" in README


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

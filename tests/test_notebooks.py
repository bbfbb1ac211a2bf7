"""The saved notebooks are whole and readable, and run from any folder with other parameters and solved exercises."""

import ast
import json
import re
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from statistics import mean

import nbformat
import papermill
import pytest
import torch
from PIL import Image

from selfie_lite import load_dataset
from selfie_lite.evaluation import read_results
from selfie_lite.evaluation.ladder import by_arm, paired_differences, read_ladder
from selfie_lite.workbook.notebook import run_notebook
from selfie_lite.workbook.pages import write_html

NOTEBOOKS = sorted((Path(__file__).parent.parent / "nbs").glob("[0-9][0-9]_*.ipynb"))
OTHER = {
    "00": {"image_number": 3, "seed": 7},
    "01": {"image_number": 8, "num_draws": 5000, "seed": 7},
    "02": {"photo": "rocket", "num_images": 30, "seed": 7},
    "03": {"photo": "coffee", "seed": 7},
    "04": {"steps": 2, "batch_size": 8, "queries": "mask_token", "seed": 7},
    "05": {"steps": 2, "queries": "mask_token", "name": "other", "puzzles": 4, "record": "answers.json", "seed": 7},
    "06": {"steps": 2, "arms": "scratch mask_token", "labels": "0.1", "name": "other", "seed": 7},
    "09": {"photo": "rocket", "images": 20, "learning_steps": 5, "seed": 7},
    "07": {"image_number": 4, "seed": 7},
    "08": {"steps": 2, "batch_size": 8, "seed": 7},
}
SECTIONS = [
    "**Question.**",
    "you can**",
    "## Exercises",
    "## What the paper says",
    "## Common mistakes",
    "**In one line:**",
]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def recorded(name):
    return json.loads((NOTEBOOKS[0].parent / "results" / name).read_text(encoding="utf-8"))


def there(path):
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell):
    return cell.metadata.get("tags", [])


def test_all_of_them_are_here():
    assert [path.stem[:2] for path in NOTEBOOKS] == sorted(OTHER)


@each_notebook
def test_saved_notebook_is_whole(path):
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it from top to bottom"
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) > 10 and any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert max(len(cell.source.splitlines()) for cell in cells) <= 30
    assert "widgets" not in notebook.metadata
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 1.5e6
    assert not re.search(r"(?<![\w.:/])/(home|root|work|Users|tmp)/\w", text), "a path of some machine"


@each_notebook
def test_follows_the_skeleton(path):
    notebook = read(path)
    text = there(path)
    assert [section for section in SECTIONS if section not in text] == []
    exercises = [cell for cell in notebook.cells if "exercise" in tags(cell)]
    assert 2 <= len(exercises) == text.count("<summary>Solution</summary>")
    first_picture = next(i for i, c in enumerate(notebook.cells) if "image/png" in str(c.get("outputs", "")))
    assert first_picture <= 7, "a picture comes first"
    for link, _, heading in re.findall(r"\]\(([^)#:]+\.ipynb)(#([^)]+))?\)", text):
        assert (path.parent / link).is_file(), link
        assert not heading or f"## {heading.replace('-', ' ')}" in there(path.parent / link), heading


@each_notebook
def test_parameters_are_typed_and_explained(path):
    parameters = papermill.inspect_notebook(path)
    (cell,) = (cell for cell in code_cells(read(path)) if "parameters" in tags(cell))
    assigned = [statement.target.id for statement in ast.parse(cell.source).body]
    assert "seed" in assigned and list(parameters) == assigned, "papermill could not read a line"
    for name, parameter in parameters.items():
        assert parameter["inferred_type_name"] in ("int", "float", "str", "bool") and parameter["help"], name


def test_a_reader_of_a_page_does_not_begin_with_imports(tmp_path):
    shutil.copy(NOTEBOOKS[0], tmp_path)
    page = write_html(tmp_path / NOTEBOOKS[0].name).read_text(encoding="utf-8")
    assert "draw_analogy" in page and "refuse_unknown_parameters" not in page


@each_notebook
def test_some_cells_are_compared_by_nbval(path):
    compared = [cell for cell in code_cells(read(path)) if "nbval-check-output" in tags(cell)]
    assert compared and all(cell.execution_count and cell.outputs for cell in compared)


def solve_exercises(notebook):
    """In the place of the `name = None` of each exercise, one after the other, each wrong answer that stands beside its
    hidden solution (```python wrong) and the solution, with the check after each. Gives the wrong answers of each."""
    wrong_answers = []
    for cell, solution in zip(notebook.cells, notebook.cells[1:], strict=False):
        if "exercise" not in tags(cell):
            continue
        wrong = re.findall(r"```python wrong\n(.*?)```", solution.source, re.DOTALL)
        (code,) = re.findall(r"```python\n(.*?)```", solution.source, re.DOTALL)
        first, _, rest = cell.source.partition("\n")
        assert re.fullmatch(r"\w+ = None", first), "an exercise starts with the reader's line"
        cell.source = "\n".join(answer + rest for answer in (*wrong, code))
        ast.parse(cell.source)
        wrong_answers.append(len(wrong))
    return wrong_answers


@pytest.fixture(scope="module")
def own_images(tmp_path_factory):
    """A folder of a reader's own images, 12 to train on and 12 to test on."""
    folder = tmp_path_factory.mktemp("own")
    for split in ("train", "test"):
        (folder / split / "things").mkdir(parents=True)
        for i, image in enumerate(load_dataset("sample", split).images[:12]):
            Image.fromarray(image.movedim(0, -1).numpy()).save(folder / split / "things" / f"{i:02}.png")
    return folder


@each_notebook
def test_runs_from_another_folder_with_other_parameters_and_solved_exercises(path, tmp_path, monkeypatch, own_images):
    notebook = read(path)
    wrong_answers = solve_exercises(notebook)
    nbformat.write(notebook, tmp_path / "solved.ipynb")
    values = OTHER[path.stem[:2]]
    if "data" in papermill.inspect_notebook(path):
        values = values | {"data": str(own_images)}
    monkeypatch.chdir(tmp_path)
    if path.stem.startswith("03"):  # one of them by the program papermill itself
        done = plain_papermill(tmp_path, "solved.ipynb", *(f"-p {k} {v}" for k, v in values.items()))
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        outcome = run_notebook(Path("solved.ipynb"), tmp_path / "out.ipynb", values)
        assert outcome.ok, outcome.error
    executed = read(tmp_path / "out.ipynb")
    assert f"seed = {values['seed']}" in str(executed.cells)
    exercises = [cell for cell in executed.cells if "exercise" in tags(cell)]
    for cell, wrong in zip(exercises, wrong_answers, strict=True):
        said = "".join(output.get("text", "") for output in cell.outputs)
        assert said.count("not yet") == wrong and said.count("right!") == 1, cell.source + said


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem[:2] != "07"], ids=lambda path: path.stem)
def test_every_solution_has_two_wrong_answers_beside_it(path):
    assert min(solve_exercises(read(path))) >= 2


def plain_papermill(folder, notebook, *parameters):
    program = Path(sys.executable).with_name("papermill")
    words = [word for parameter in parameters for word in parameter.split()]
    command = [str(program), str(notebook), "out.ipynb", *words, "-k", "python3"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@each_notebook
def test_looks_at_its_parameters_before_anything_else(path):
    cells = code_cells(read(path))
    lines = [line for line in cells[1].source.splitlines() if line and not re.match(r"(from|import) |\w+ as ", line)]
    assert "parameters" in tags(cells[0]) and lines[0] == "refuse_unknown_parameters()"


def test_a_misspelt_parameter_is_refused_by_plain_papermill_too(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="no parameter 'sed'. Did you mean 'seed'"):
        papermill.execute_notebook(NOTEBOOKS[1], tmp_path / "out.ipynb", {"sed": 7}, progress_bar=False)


def test_what_notebooks_say_about_recorded_searches_and_probes():
    search = recorded("learning_rate.json")["rows"]
    median = {tuple(row["changed"].values())[:1] + (row["changed"]["learning_rate"], row["changed"]["initial_length"]):
              row["median_accuracy"] for row in search}  # fmt: skip
    best = {name: max(x for (optimizer, *_), x in median.items() if optimizer == name) for name in ("adamw", "sgd")}
    near = [x for (name, rate, length), x in median.items() if (name, length) == ("adamw", 1.0) and rate >= 0.001]
    assert min(near) > best["sgd"] > median["sgd", 0.03, 1.0] + 0.04
    lengths = {length: x for (name, rate, length), x in median.items() if (name, rate) == ("adamw", 0.002)}
    assert max(lengths[n] for n in (0.1, 0.3, 1.0)) - min(lengths[n] for n in (0.1, 0.3, 1.0)) < 0.01
    assert lengths[1.0] > lengths[3.0] > lengths[10.0] == min(lengths.values())

    for line in (NOTEBOOKS[0].parent / "results" / "finetune_search.jsonl").read_text().splitlines():
        tried = json.loads(line)
        assert max(tried["searched_learning_rates"], key=tried["searched_learning_rates"].get) == "0.001"
        assert "test_accuracy" not in tried

    probes = {row["features"]: row for row in recorded("probes_cifar10.json")["rows"]}
    linear, knn = ({name: row[kind] for name, row in probes.items()} for kind in ("linear", "knn"))
    assert min(linear["additive"], linear["mask_token"]) > linear["fresh resnet18"] > linear["raw pixels"]
    assert knn["additive"] > knn["raw pixels"] > max(knn["fresh resnet18"], knn["mask_token"])
    assert linear["additive"] > linear["mask_token"], "the better puzzle solver is not ahead"


def test_what_readme_says_about_more_steps():
    longer = read_results(NOTEBOOKS[0].parent / "results" / "finetune_longer.jsonl")
    reached = [row["test_accuracy"] for row in longer if row["config"]["pretrained"] == "scratch"]
    readme = (NOTEBOOKS[0].parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"600 steps from scratch with all labels reach {sum(reached) / len(reached):.3f}" in readme


def test_what_notebook_05_says_about_recorded_runs():
    short = recorded("short_runs.json")["rows"][0]["accuracy"].values()
    assert min(short) > 0.25 + 2 * (0.25 * 0.75 / 800) ** 0.5, "200 images, four hidden patches each"
    run = recorded("pretraining_by_step.json")
    answers = torch.tensor(run["hundredths_of_logits"]["600"]).argmax(dim=2)
    mirrored, others = [], []
    for choices, places in zip(answers.tolist(), run["masked"], strict=True):
        for asked, candidate in permutations(range(4), 2):
            if places[asked] // 4 == places[candidate] // 4:
                pair = mirrored if places[asked] % 4 + places[candidate] % 4 == 3 else others
                pair.append(choices[asked] == candidate)
    said = [f"{sum(pairs) / len(pairs):.2f}" for pairs in (mirrored, others)]
    assert f"takes the mirror image in {said[0]} of the cases" in there(NOTEBOOKS[5]).replace("\n", " ")
    assert f"other patches of its row ({said[1]})" in there(NOTEBOOKS[5])


def test_the_readme_says_of_the_ladder_what_its_file_says():
    lines = read_ladder(NOTEBOOKS[0].parent / "results" / "ladder.jsonl")
    probe, puzzle = (
        by_arm(lines, "pretrain", *keys) for keys in (("whole", "linear"), ("puzzle", "own", "one_to_one"))
    )
    table = (NOTEBOOKS[0].parent.parent / "README.md").read_text(encoding="utf-8").split("## What each piece buys")[1]
    differences = {row["arm"]: row for row in paired_differences(probe, "additive")}
    for arm, name in (("location", "v = e, no encoder"), ("mask_token", "mask tokens")):
        (row,) = (line for line in table.splitlines() if line.startswith(f"| {name} |"))
        for number in (mean(puzzle[arm].values()), mean(probe[arm].values())):
            assert f" {number:.3f} |" in row
        assert f"| {differences[arm]['mean']:+.3f} (" in row and f"| {len(probe[arm])} |" in row
    assert differences["location"]["low"] < 0 < differences["location"]["high"], "no difference is found"
    assert mean(puzzle["mask_token"].values()) > mean(puzzle["additive"].values()) + 0.2
    assert max(differences["mask_token"]["differences"].values()) < 0, "mask tokens teach P less, with every seed"

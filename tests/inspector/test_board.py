"""The board's own arithmetic, run by Node where it is."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")


@pytest.mark.skipif(not NODE, reason="no Node to run board.js: apt-get install nodejs")
def test_units_by_node(tmp_path):
    for folder in ("selfie_lite/inspector", "tests/inspector"):
        (tmp_path / folder).mkdir(parents=True)
        for file in [*(ROOT / folder).glob("*.js"), *(ROOT / folder).glob("*.mjs")]:
            shutil.copy(file, tmp_path / folder)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    command = [NODE, "--test", "tests/inspector/board.test.mjs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "# pass 6" in done.stdout, done.stdout + done.stderr


def test_the_board_stays_one_short_module_without_dependencies():
    source = (ROOT / "selfie_lite/inspector/board.js").read_text(encoding="utf-8")
    assert source.count("\n") < 600 and "import" not in source.replace("important", "")
    assert "http" not in source and "http" not in (ROOT / "selfie_lite/inspector/board.css").read_text(encoding="utf-8")

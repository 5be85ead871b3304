"""Shells complete verbs, flags and choices of `fssd`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fssd.cli.main import COMMANDS, main

# What bash does at a tab: words, the index of the one under the cursor, the function's answer.
PRESS = """source {script}
press() {{
  COMP_WORDS=(fssd "$@"); COMP_CWORD=$#; COMPREPLY=()
  _tyro_fssd fssd "${{COMP_WORDS[$COMP_CWORD]}}" "${{COMP_WORDS[$COMP_CWORD-1]}}"; echo "${{COMPREPLY[*]}}"
}}
press ""
press det
press train --pat
press train --schedule co
"""


def script_for(shell: str) -> str:
    command = [sys.executable, "-m", "fssd", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path: Path) -> None:
    script, press = tmp_path / "fssd.bash", tmp_path / "press.bash"
    script.write_text(script_for("bash"))
    press.write_text(PRESS.format(script=script))
    done = subprocess.run(["bash", str(press)], capture_output=True, text=True, check=True)
    verbs, verb, flag, value = done.stdout.splitlines()
    assert set(COMMANDS) <= set(verbs.split())
    assert verb.split() == ["detect"]
    assert flag.split() == ["--patience"]
    assert set(value.split()) == {"constant", "cosine"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_know_every_verb(shell: str) -> None:
    script = script_for(shell)
    assert all(verb in script for verb in COMMANDS)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "tcsh"])
    assert ended.value.code == 2
    assert "Expected one of ('bash', 'zsh'," in capsys.readouterr().err

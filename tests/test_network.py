"""The one test that reaches YouTube itself: pytest -m network."""

import pathlib
import subprocess
import sys

import mutagen
import pytest

from conftest import SCRIPT


@pytest.mark.network
@pytest.mark.timeout(600)
def test_a_few_rows_from_youtube_itself(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(SCRIPT), '--root', str(tmp_path), '--splits', 'eval', '--limit', '10']
    ran = subprocess.run(command, capture_output=True, text=True)
    if 'refuses us' in ran.stderr:
        pytest.skip(f'YouTube does not serve this address: {ran.stderr}')
    assert ran.returncode == 0, ran.stdout + ran.stderr
    clips = list((tmp_path / 'wavs').glob('id_*.m4a'))
    assert clips, ran.stdout
    assert all(mutagen.File(clip).info.length == pytest.approx(10, abs=0.1) for clip in clips)

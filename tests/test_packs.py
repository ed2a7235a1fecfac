"""What trainers read: AST's and PANNs' lists, and WebDataset shards, of what is chosen and there."""

import io
import json
import re
import sqlite3
import subprocess
import sys
import tarfile

import mutagen
import pytest

import youtube as stand_in
from conftest import SCRIPT, Program

ROWS = stand_in.rows(7)
IDS = [row[:11] for row in ROWS]


def keys(program: Program, split: str = 'eval') -> list[list[str]]:
    """The keys of each shard, in order."""
    shards = sorted((program.root / 'packs').glob(f'{split}-*.tar'))
    assert [path.name for path in shards] == [f'{split}-{n:06}.tar' for n in range(len(shards))]
    return [[name[:-5] for name in tarfile.open(path).getnames() if name.endswith('.json')] for path in shards]


def names(*numbers: int) -> list[str]:
    return [f'id_{IDS[n]}' for n in numbers]


def test_asts_list_holds_what_is_there(program: Program) -> None:
    program.offer(*ROWS)
    program.site.add(IDS[2], fault='private')
    program.run('--preset', 'ast')
    data = json.loads((program.root / 'wavs' / 'datafile_eval.json').read_text())['data']
    assert [entry['wav'] for entry in data] == [f'{program.root}/wavs/{id}.wav' for id in names(0, 1, 3, 4, 5, 6)]
    assert all(mutagen.File(entry['wav']).info.sample_rate == 16000 for entry in data)
    assert data[0]['labels'] == ROWS[0].split('"')[1]


def test_panns_list_has_no_row_without_its_wav(program: Program) -> None:
    program.offer(*ROWS)
    program.site.add(IDS[2], fault='private')
    program.run('--preset', 'panns')
    lines = (program.root / 'wavs' / 'eval_segments.csv').read_text().splitlines()
    assert lines[3:] == [row for row in ROWS if row[:11] != IDS[2]]
    assert all(line.startswith('#') for line in lines[:3])


def test_panns_list_has_no_row_whose_wav_is_elsewhere(program: Program) -> None:
    program.offer(*ROWS[:3])
    (program.root / 'csvs').mkdir(parents=True)
    shared = ROWS[0].rpartition(', ')[0]
    (program.root / 'csvs/mine.csv').write_text(f'ytid,start,end\n{shared}\nbbbbbbbbbbb,30,40\n')
    program.run('--splits', 'eval', 'mine', '--preset', 'panns')
    lines = (program.root / 'wavs/mine_segments.csv').read_text().splitlines()[3:]
    there = {path.stem[1:] for path in (program.root / 'wavs/mine_segments').glob('Y*.wav')}
    assert {line.split(',')[0] for line in lines} == there
    assert len(there) == 1, 'of two rows; the other clip is in eval_segments'


def test_shards_hold_each_clip_once_and_go_on_where_they_were(program: Program) -> None:
    program.offer(*ROWS)
    program.run('--limit', '5')
    assert '5 clips packed' in program.run('--pack', '2').stdout
    assert keys(program) == [names(0, 1), names(2, 3), names(4)]
    program.run()
    before = (program.root / 'packs' / 'eval-000000.tar').stat().st_mtime_ns
    assert '2 clips packed' in program.run('--pack', '2').stdout
    assert keys(program) == [names(0, 1), names(2, 3), names(4), names(5, 6)]
    assert '0 clips packed' in program.run('--pack', '2').stdout
    assert (program.root / 'packs' / 'eval-000000.tar').stat().st_mtime_ns == before


def test_a_shard_that_was_lost_or_not_written_down_is_made_again(program: Program) -> None:
    program.offer(*ROWS[:4])
    program.run()
    program.run('--pack', '2')
    last = program.root / 'packs' / 'eval-000001.tar'
    whole = last.read_bytes()
    with sqlite3.connect(program.root / 'wavs' / 'm4a.sqlite3') as db:  # killed between the file and the ledger
        db.execute('DELETE FROM pack WHERE shard = 1')
    last.write_bytes(b'half')
    assert '2 clips packed' in program.run('--pack', '2').stdout
    assert last.read_bytes() == whole
    last.unlink()
    assert '2 clips packed' in program.run('--pack', '2').stdout
    assert last.read_bytes() == whole


def test_shards_that_the_ledger_does_not_know_are_not_packed_beside(program: Program) -> None:
    program.offer(*ROWS[:4])
    program.run()
    program.run('--pack', '2')
    program.lose_ledgers()
    program.run()
    refused = program.run('--pack', '3', status=2)
    assert 'packs/ holds shards of eval that the ledger does not know; move them away' in refused.stderr


def test_only_what_is_chosen_is_packed_and_what_lists_share_once(program: Program) -> None:
    program.offer(*ROWS[:3])
    program.offer(*ROWS[2:5], split='balanced_train')
    both = ['--splits', 'eval', 'balanced_train']
    program.run(*both)
    program.run(*both, '--limit', '2', '--pack', '10')
    assert keys(program) == [names(0, 1)]
    program.run(*both, '--pack', '10')
    assert keys(program) == [names(0, 1), names(2)]
    assert keys(program, 'balanced_train') == [names(3, 4)]


def test_webdataset_reads_them(program: Program) -> None:
    webdataset = pytest.importorskip('webdataset', reason='WEBDATASET IS NOT INSTALLED: see requirements-all.txt')
    program.offer(*ROWS)
    program.run('--ext', 'flac')
    program.run('--ext', 'flac', '--pack', '3')
    shards = sorted(str(path) for path in (program.root / 'packs').glob('*.tar'))
    found = {sample['__key__']: sample for sample in webdataset.WebDataset(shards, shardshuffle=False)}
    assert sorted(found) == sorted(program.metadata)
    for key, sample in found.items():
        assert json.loads(sample['json']) == program.metadata[key]
        assert mutagen.File(io.BytesIO(sample['flac'])).info.length == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    ('part', 'runs'),
    [
        pytest.param('AST', [['--preset', 'ast', '--pad']], id='ast'),
        pytest.param('WebDataset', [['--ext', 'flac'], ['--ext', 'flac', '--pack', '3']], id='webdataset'),
    ],
)
def test_readmes_lines_read_them(program: Program, part: str, runs: list[list[str]]) -> None:
    """The README's own lines, run in the root."""
    if part == 'WebDataset':
        pytest.importorskip('webdataset', reason='WEBDATASET IS NOT INSTALLED: see requirements-all.txt')
    program.offer(*ROWS)
    for flags in runs:
        program.run(*flags)
    readme = (SCRIPT.parent / 'README.md').read_text(encoding='utf-8').partition('## What trainers read')[2]
    block = re.findall(r'```python\n(.*?)```', readme.partition(f'**{part}**')[2], re.S)[0]
    read = subprocess.run(
        [sys.executable, '-c', block], cwd=program.root, env=program.env, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr
    assert len(read.stdout.splitlines()) == len(ROWS)


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--pack', '0'], 'pack = 0: use a number above 0'),
        (['--pack', '2', '--ext', 'wav'], 'nothing to pack'),
        (['--pack', '2', '--merge'], 'merge and pack: one at a time'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_what_cannot_be_packed(program: Program, flags: list[str], words: str) -> None:
    assert words in program.run(*flags, status=2).stderr


def test_a_clip_that_is_missing_is_named(program: Program) -> None:
    program.offer(*ROWS[:2])
    program.run()
    program.clip(IDS[1]).unlink()
    said = program.run('--pack', '2', status=2).stderr
    assert f'id_{IDS[1]}.m4a: is not there' in said
    assert '--verify' in said
    assert not list((program.root / 'packs').iterdir())


def test_shards_of_two_makes_do_not_mix(program: Program) -> None:
    program.offer(*ROWS[:2])
    program.run()
    program.run('--ext', 'wav')
    program.run('--pack', '1')
    assert 'packs/ holds shards of m4a' in program.run('--ext', 'wav', '--pack', '1', status=2).stderr
    for path in (program.root / 'packs').iterdir():
        path.unlink()
    assert '2 clips packed' in program.run('--ext', 'wav', '--pack', '1').stdout


def test_what_is_packed_stays_packed_after_a_merge(program: Program) -> None:
    program.offer(*ROWS[:4])
    for shard in ('0/2', '1/2'):
        program.run('--shard', shard)
    program.run('--merge')
    assert '4 clips packed' in program.run('--pack', '2').stdout
    (program.root / 'csvs' / 'eval_segments.csv').write_bytes(stand_in.segments_csv(ROWS))
    for shard in ('0/2', '1/2'):
        program.run('--shard', shard)
    program.run('--merge')
    assert '3 clips packed' in program.run('--pack', '2').stdout
    assert sorted(key for shard in keys(program) for key in shard) == sorted(names(*range(7)))

"""What researchers load: padded clips, presets, the audiofolder, the plan and the coverage."""

import csv
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import mutagen
import numpy as np
import pytest

import download
import youtube as stand_in
from conftest import SCRIPT, Program, listen, offset, opened, settle

A, B = 'aaaaaaaaaaa', '-b_bbbbbbbb'


# ---------------------------------------------------------------------------------------------------------- the clips


@pytest.mark.parametrize(
    ('ext', 'flags'),
    [('wav', ['--sample-rate', '16000', '--channels', '1']), ('flac', []), ('m4a', []), ('opus', []), ('mp3', [])],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_short_clips_are_padded_with_silence(program: Program, ext: str, flags: list[str]) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"', f'{B}, 0.000, 4.000, "/m/09x0r"')
    program.site.add(A, seconds=36.4)
    program.run('--ext', ext, '--pad', *flags)
    for ytid, real in [(A, 6.4), (B, 4)]:
        path, record = program.clip(ytid, ext), program.metadata[f'id_{ytid}']
        assert record['duration'] == pytest.approx(real, abs=0.06)
        assert record['padded'] == pytest.approx(10, abs=0.06)
        exact = ext in ('wav', 'flac')
        assert mutagen.File(path).info.length == pytest.approx(10, abs=1e-6 if exact else 0.06)
        heard = listen(path)
        assert np.abs(heard[int((real + 0.2) * 44100) :]).max() < 0.001
        assert np.abs(heard[: int((real - 0.2) * 44100)]).max() > 0.1
    assert '0 missing or damaged' in program.run('--ext', ext, '--pad', '--verify', *flags).stdout


def test_what_is_long_enough_is_not_touched(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    program.run('--pad')
    padded = program.clip().read_bytes()
    assert program.metadata[f'id_{A}']['padded'] == program.metadata[f'id_{A}']['duration']
    other = Program(program.root.parent / 'other', program.site)
    other.run()
    assert other.clip().read_bytes() == padded


def test_other_lists_are_padded_to_the_length_of_their_rows(program: Program) -> None:
    (program.root / 'csvs').mkdir(parents=True)
    (program.root / 'csvs' / 'mine.csv').write_text(f'ytid,start,end\n{A},30,38\n{B},1,3\n')
    program.site.add(A, seconds=36.4)
    program.run('--splits', 'mine', '--ext', 'wav', '--pad')
    assert [mutagen.File(program.clip(f'{ytid}_*')).info.length for ytid in (A, B)] == [8, 2]


def test_padded_clips_that_no_ledger_knows_are_not_trusted(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    program.site.add(A, seconds=36.4)
    program.run('--ext', 'wav', '--pad')
    program.lose_ledgers()
    program.run('--ext', 'wav', '--pad')
    assert program.metadata[f'id_{A}']['duration'] == pytest.approx(6.4, abs=0.01)


def test_padding_video_is_refused(program: Program) -> None:
    assert 'pad is for audio' in program.run('--ext', 'mp4', '--pad', status=2).stderr


@pytest.mark.parametrize(
    ('flags', 'path', 'rate'),
    [
        pytest.param(['--preset', 'panns'], f'eval_segments/Y{A}.wav', 32000, id='panns'),
        pytest.param(['--preset', 'ast'], f'id_{A}.wav', 16000, id='ast'),
        pytest.param(
            ['--sample-rate', '8000', '--preset', 'panns', '--name', '{ytid}'], f'{A}.wav', 8000, id='flags win'
        ),
    ],
)
def test_presets(program: Program, flags: list[str], path: str, rate: int) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    program.run(*flags)
    clip = program.root / 'wavs' / path
    assert (mutagen.File(clip).info.sample_rate, mutagen.File(clip).info.channels) == (rate, 1)
    assert abs(offset(clip, 30, 10)) <= 0.002


def test_an_unknown_preset(program: Program) -> None:
    assert "preset = 'pans': use one of panns, ast" in program.run('--preset', 'pans', status=2).stderr


# ------------------------------------------------------------------------------------------------------------ loading


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ['datasets', 'librosa', 'soundfile'])),
    reason='DATASETS IS NOT INSTALLED: pip install -r tests/requirements-all.txt',
)
@pytest.mark.parametrize('name', ['id_{ytid}', '{split}/{ytid}'])
def test_readmes_lines_load_the_clips(program: Program, name: str, tmp_path: pathlib.Path) -> None:
    """The README's own lines, run in the root."""
    rows = stand_in.rows(3)
    program.offer(*rows)
    program.site.files |= {
        'audioset_eval_strong.tsv': strong(rows[0]),
        'mid_to_display_name.tsv': b'/m/09x0r\tSpeech\n',
    }
    program.run('--splits', 'eval', 'eval_strong', '--name', name, '--preset', 'ast')
    readme = (
        (SCRIPT.parent / 'README.md').read_text(encoding='utf-8').partition('## Loading it')[2].partition('\n## ')[0]
    )
    blocks = re.findall(r'```python\n(.*?)```', readme, re.S)
    ran = [block for block in blocks if 'torch' not in block]
    assert len(ran) == 2, 'datasets and plain Python'
    program.env['HF_HOME'], program.env['HF_HUB_OFFLINE'] = str(tmp_path / 'hub'), '1'
    for block in ran:
        done = subprocess.run(
            [sys.executable, '-c', block], cwd=program.root, env=program.env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert 'Speech' in done.stdout or 'Male' in done.stdout or 'Domestic' in done.stdout
        assert '16000' in done.stdout


def strong(row: str) -> bytes:
    ytid, start, *_ = row.split(', ')
    head = 'segment_id\tstart_time_seconds\tend_time_seconds\tlabel'
    return f'{head}\n{ytid}_{round(float(start) * 1000)}\t1.5\t2.5\t/m/09x0r\n'.encode()


@pytest.mark.parametrize('name', ['id_{ytid}', '{ytid[0]}/{ytid}', 'x/{split}_segments/{part}/{ytid}'])
def test_the_audiofolder_lists_each_clip_with_its_record(program: Program, name: str) -> None:
    program.offer(*stand_in.rows(5))
    program.site.healthy.title = 'quotes " and \\ and {"path": "wavs/x"} ünd\u2028 more'
    program.run('--name', name)
    listing = program.root / 'wavs' / 'metadata.jsonl'
    assert list((program.root / 'wavs').rglob('metadata.jsonl')) == [listing]
    lines = listing.read_text(encoding='utf-8').split('\n')[:-1]
    records = [json.loads(line) for line in lines]
    assert [next(iter(record)) for record in records] == ['file_name'] * 5
    assert all((listing.parent / record['file_name']).is_file() for record in records)
    assert {
        record['id']: {k: v for k, v in record.items() if k != 'file_name'} for record in records
    } == program.metadata


def test_merging_where_the_clips_are_not(program: Program) -> None:
    program.offer(*stand_in.rows(2))
    program.run('--name', '{split}/{ytid}')
    shutil.rmtree(program.root / 'wavs' / 'eval')
    assert '2 records' in program.run('--merge').stdout


def test_the_first_lines_show_all_columns(program: Program) -> None:
    csvs, ledger = program.root / 'csvs', program.root / 'wavs' / 'm4a.sqlite3'
    csvs.mkdir(parents=True)
    ledger.parent.mkdir()
    rows = ''.join(f'{n:011},30,,/m/1\n' for n in range(3000))
    (csvs / 'mine.csv').write_text(f'ytid,start,caption,tags\n{rows}aaaaaaaaaaa,30,late,\n')
    with opened(csvs, 'mine', ledger=ledger) as job:
        settle(job, *job.rows())
    program.run('--merge')
    listed = (program.root / 'wavs' / 'metadata.jsonl').read_text().splitlines()
    assert len(listed) == 3001
    assert any('captions' in line for line in listed[:3])


def test_lists_meet_in_one_listing(program: Program) -> None:
    rows = [f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(5)]
    program.offer(*rows)
    (program.root / 'csvs').mkdir(parents=True)
    (program.root / 'csvs' / 'caps.csv').write_text(f'ytid,start,caption\n{4:011},30,a caption\n{5:011},30,another\n')
    program.run('--splits', 'eval', 'caps')
    records = [
        json.loads(line) for line in (program.root / 'wavs' / 'metadata.jsonl').read_text(encoding='utf-8').splitlines()
    ]
    assert len(records) == 6
    assert any(record.get('captions') for record in records)


# --------------------------------------------------------------------------------------------------- before and after


def mixed(program: Program) -> None:
    """Two lists: of eval 2 done, 1 private, 2 to do; of balanced_train one is done as eval's, one to do."""
    rows = [
        f'{n:011}, 30.000, 40.000, "{tags}"' for n, tags in enumerate(['/m/09x0r', '/m/09x0r,/m/068hy', '/m/068hy'])
    ]
    program.offer(*rows)
    program.site.add(f'{2:011}', fault='private')
    program.run()
    more = [f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in (3, 4)]
    (program.root / 'csvs' / 'eval_segments.csv').write_bytes(stand_in.segments_csv([*rows, *more]))
    program.offer(f'{5:011}, 30.000, 40.000, "/m/05zppz"', split='balanced_train')


def test_a_dry_run_counts_and_asks_nothing(program: Program) -> None:
    mixed(program)
    asked, settled = program.site.counts['player'], program.settled
    said = program.run('--splits', 'eval', 'balanced_train', '--dry-run').stdout
    assert re.search(r'^eval +5 +3 +2 +2$', said, re.M), said
    assert re.search(r'^balanced_train +1 +0 +0 +1$', said, re.M)
    assert program.site.counts['player'] == asked
    assert program.settled == settled
    limited = program.run('--splits', 'eval', 'balanced_train', '--dry-run', '--limit', '4').stdout
    assert re.search(r'^eval +4 +3 +2 +1$', limited, re.M), limited
    chosen = program.run('--dry-run', '--labels', '/m/068hy', '--no-descendants').stdout
    assert re.search(r'^eval +2 +2 +1$', chosen, re.M), chosen


def test_coverage(program: Program, tmp_path: pathlib.Path) -> None:
    mixed(program)
    asked = program.site.counts.copy()
    said = program.run('--report').stdout.splitlines()
    assert [line.split() for line in said[2:]] == [
        ['Domestic', 'animals,', 'pets', '2', '1', '0', '50.0%', 'private', '1'],
        ['Speech', '4', '2', '2', '0.0%'],
    ]
    program.run('--report', str(tmp_path / 'out.csv'))
    with open(tmp_path / 'out.csv', encoding='utf-8', newline='') as lines:
        table = list(csv.DictReader(lines))
    assert list(table[0]) == ['mid', 'label', 'rows', 'there', 'left', 'lost', 'gone: private']
    assert list(table[0].values()) == ['/m/068hy', 'Domestic animals, pets', '2', '1', '0', '0.5', '1']
    assert program.site.counts == asked


def test_a_run_ends_with_the_classes_that_lost_most(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"', f'{B}, 30.000, 40.000, "/m/068hy"')
    program.site.add(B, fault='private')
    assert re.search(r'^Domestic animals, pets +1 +0 +100.0% +private 1$', program.run().stdout, re.M)
    assert 'Domestic' not in program.run().stdout, 'nothing has changed'


def test_one_mode_at_a_time() -> None:
    with pytest.raises(download.UsageError, match='merge and report: one at a time'):
        download.read_settings(['--merge', '--report'])
